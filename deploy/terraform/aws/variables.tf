variable "prefix" {
  description = "The prefix of the store: oauth/crm for --store awssm:oauth/crm."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*$", var.prefix))
    error_message = "A prefix has letters, digits and _+=.@-, and no slash at its ends."
  }
}

variable "name" {
  description = "The name of the policy, the role and the key."
  type        = string
  default     = "tokenkeep"
}

variable "assume_role_policy" {
  description = "Who may become the role, as JSON. Null makes no role."
  type        = string
  default     = null
}

variable "create_key" {
  description = "Make a KMS key. Give its ARN to the program as the key of the store."
  type        = bool
  default     = false
}

variable "kms_key_arn" {
  description = "The ARN of a KMS key that there is, if the records are encrypted with one."
  type        = string
  default     = null
}

variable "alarm_actions" {
  description = "What is told of an alarm: ARNs of SNS topics."
  type        = list(string)
  default     = []
}

variable "log_group_name" {
  description = "The log group that the agent writes to. Null makes no alarm of its log."
  type        = string
  default     = null
}

variable "writes_per_minute" {
  description = "How many PutSecretValue calls of the account in a minute raise the alarm. The quota is 3,000; 0 makes no alarm."
  type        = number
  default     = 2400
}
