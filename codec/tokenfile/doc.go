// Package tokenfile reads and writes the token files of the Zoho SDKs. Each row of comma-separated
// values holds one record. Quotes, line breaks and the names in the header depend on the SDK.
package tokenfile
