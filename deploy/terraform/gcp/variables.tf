variable "project" {
  description = "The ID of the project."
  type        = string
}

variable "prefix" {
  description = "The prefix of the store: oauth for --store gcpsm:PROJECT/oauth."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,128}$", var.prefix))
    error_message = "A prefix has 1 to 128 letters, digits, hyphens and underscores."
  }
}

variable "name" {
  description = "The name of the role, the service account and the key ring."
  type        = string
  default     = "tokenkeep"
}

variable "service_account" {
  description = "The e-mail address of a service account that there is. Null makes one."
  type        = string
  default     = null
}

variable "key_location" {
  description = "Where a KMS key is made: global for secrets that are replicated automatically. Null makes none."
  type        = string
  default     = null
}

variable "notification_channels" {
  description = "What is told of an alarm: names of notification channels."
  type        = list(string)
  default     = []
}
