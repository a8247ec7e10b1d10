// Package awssm keeps OAuth token records in AWS Secrets Manager.
package awssm
