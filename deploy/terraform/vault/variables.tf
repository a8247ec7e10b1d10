variable "mount" {
  description = "The path of the engine, KV version 2: secret for --store vault:secret/oauth."
  type        = string
}

variable "prefix" {
  description = "The prefix of the store: oauth for --store vault:secret/oauth."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", var.prefix))
    error_message = "A prefix has letters, digits and _.-, and no slash at its ends."
  }
}

variable "name" {
  description = "The name of the policy and the roles."
  type        = string
  default     = "tokenkeep"
}

variable "create_mount" {
  description = "Make the engine."
  type        = bool
  default     = false
}

variable "approle_mount" {
  description = "Where AppRole is mounted. Null makes no such role."
  type        = string
  default     = null
}

variable "kubernetes" {
  description = "Where the Kubernetes method is mounted, and whose Pods may log in. Null makes no such role."
  type = object({
    mount            = string
    service_accounts = list(string)
    namespaces       = list(string)
  })
  default = null
}
