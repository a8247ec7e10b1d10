// Package tokenfile reads and writes the token files of the Zoho SDKs. A file has
// one record in each row of comma-separated values, in the dialect of its SDK.
package tokenfile
