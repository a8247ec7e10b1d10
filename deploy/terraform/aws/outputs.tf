output "policy_arn" {
  description = "The policy, for a role that is made elsewhere."
  value       = aws_iam_policy.tokenkeep.arn
}

output "policy_json" {
  description = "The text of the policy."
  value       = local.policy_json
}

output "role_arn" {
  description = "The role; null if none is made."
  value       = one(aws_iam_role.tokenkeep[*].arn)
}

output "kms_key_arn" {
  description = "The key; null if there is none."
  value       = local.encrypted ? local.key : null
}
