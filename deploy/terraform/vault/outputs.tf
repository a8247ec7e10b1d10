output "policy" {
  description = "The name of the policy, for roles that are made elsewhere."
  value       = vault_policy.tokenkeep.name
}

output "approle" {
  description = "The name of the AppRole; null if none is made."
  value       = one(vault_approle_auth_backend_role.tokenkeep[*].role_name)
}
