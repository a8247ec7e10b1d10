# The policy of a store in HashiCorp Vault or OpenBao, and what it takes to use it: an engine,
# and a role that programs log in with.

terraform {
  required_version = ">= 1.5"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 4.0"
    }
  }
}

resource "vault_mount" "records" {
  count       = var.create_mount ? 1 : 0
  path        = var.mount
  type        = "kv"
  options     = { version = "2" }
  description = "Records of tokenkeep"
}

resource "vault_policy" "tokenkeep" {
  name = var.name
  # What vaultstore.Policy returns; a test of tokenkeep writes the file.
  policy = templatefile("${path.module}/policy.hcl.tftpl", { mount = var.mount, prefix = var.prefix })
}

resource "vault_approle_auth_backend_role" "tokenkeep" {
  count          = var.approle_mount == null ? 0 : 1
  backend        = var.approle_mount
  role_name      = var.name
  token_policies = [vault_policy.tokenkeep.name]
  token_ttl      = 3600
  token_max_ttl  = 86400
}

resource "vault_kubernetes_auth_backend_role" "tokenkeep" {
  count                            = var.kubernetes == null ? 0 : 1
  backend                          = var.kubernetes.mount
  role_name                        = var.name
  bound_service_account_names      = var.kubernetes.service_accounts
  bound_service_account_namespaces = var.kubernetes.namespaces
  token_policies                   = [vault_policy.tokenkeep.name]
  token_ttl                        = 3600
}
