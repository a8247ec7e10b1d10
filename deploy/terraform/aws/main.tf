# The policy of a store in AWS Secrets Manager, and what it takes to use it: a key, and a
# role that programs become.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 6.0"
    }
  }
}

data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_partition" "current" {}

locals {
  encrypted = var.create_key || var.kms_key_arn != null
  key       = var.create_key ? aws_kms_key.records[0].arn : coalesce(var.kms_key_arn, "none")

  # What awssm.Policy returns; a test of tokenkeep writes the file.
  policy = jsondecode(templatefile("${path.module}/policy.json.tftpl", {
    partition = data.aws_partition.current.partition
    region    = data.aws_region.current.region
    account   = data.aws_caller_identity.current.account_id
    prefix    = var.prefix
    key       = local.key
  }))
  policy_json = jsonencode({
    Version   = local.policy.Version
    Statement = [for s in local.policy.Statement : s if s.Sid != "Key" || local.encrypted]
  })
}

resource "aws_iam_policy" "tokenkeep" {
  name   = var.name
  policy = local.policy_json
}

resource "aws_iam_role" "tokenkeep" {
  count              = var.assume_role_policy == null ? 0 : 1
  name               = var.name
  assume_role_policy = var.assume_role_policy
}

resource "aws_iam_role_policy_attachment" "tokenkeep" {
  count      = var.assume_role_policy == null ? 0 : 1
  role       = aws_iam_role.tokenkeep[0].name
  policy_arn = aws_iam_policy.tokenkeep.arn
}

resource "aws_kms_key" "records" {
  count                   = var.create_key ? 1 : 0
  description             = "Records of tokenkeep under ${var.prefix}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
}

resource "aws_kms_alias" "records" {
  count         = var.create_key ? 1 : 0
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.records[0].key_id
}
