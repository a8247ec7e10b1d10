# A Python function whose Zoho tokens the tokenkeep extension keeps in Secrets Manager.
# README.md says how to build layer/ and function/.

variable "token_user" {
  description = "Whose token the function uses."
  type        = string
}

variable "token_client" {
  description = "The ID of the OAuth client."
  type        = string
}

variable "data_center" {
  description = "Zoho's data center: us, eu, in, …"
  type        = string
  default     = "eu"
}

data "aws_partition" "current" {}

# What "tokenkeep policy aws oauth/crm" prints.
module "tokenkeep" {
  source = "../../deploy/terraform/aws"
  prefix = "oauth/crm"
}

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["lambda.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "function" {
  name               = "tokenkeep-crm"
  assume_role_policy = data.aws_iam_policy_document.assume.json
}

resource "aws_iam_role_policy_attachment" "tokenkeep" {
  role       = aws_iam_role.function.name
  policy_arn = module.tokenkeep.policy_arn
}

resource "aws_iam_role_policy_attachment" "logs" {
  role       = aws_iam_role.function.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
}

data "archive_file" "layer" {
  type        = "zip"
  source_dir  = "${path.module}/layer"
  output_path = "${path.module}/layer.zip"
}

data "archive_file" "function" {
  type        = "zip"
  source_dir  = "${path.module}/function"
  output_path = "${path.module}/function.zip"
}

resource "aws_lambda_layer_version" "tokenkeep" {
  layer_name               = "tokenkeep"
  filename                 = data.archive_file.layer.output_path
  source_code_hash         = data.archive_file.layer.output_base64sha256
  compatible_architectures = ["arm64"]
}

resource "aws_lambda_function" "crm" {
  function_name    = "tokenkeep-crm"
  filename         = data.archive_file.function.output_path
  source_code_hash = data.archive_file.function.output_base64sha256
  role             = aws_iam_role.function.arn
  handler          = "app.handler"
  runtime          = "python3.13"
  architectures    = ["arm64"]
  timeout          = 60
  memory_size      = 256
  layers           = [aws_lambda_layer_version.tokenkeep.arn]
  environment {
    variables = {
      TOKEN_PREFIX               = "oauth/crm"
      TOKEN_USER                 = var.token_user
      ZOHO_DATA_CENTER           = var.data_center
      TOKENKEEP_ONLY_CLIENT      = var.token_client
      TOKENKEEP_AGENT_TOKEN_FILE = "/tmp/tokenkeep-token"
    }
  }
}
