output "service_account" {
  description = "The e-mail address of the service account that programs run as."
  value       = local.account
}

output "role" {
  description = "The custom role, for accounts that are made elsewhere."
  value       = google_project_iam_custom_role.tokenkeep.id
}

output "kms_key" {
  description = "The key; null if none is made."
  value       = one(google_kms_crypto_key.records[*].id)
}
