package authservers

import (
	"embed"
	"path"
	"strings"
)

//go:embed testdata/answers/*.json
var answers embed.FS

// Answers returns a token response from each of twenty providers, by the provider's name. The
// responses have the form that the providers document, with made-up values.
func Answers() map[string][]byte {
	all := map[string][]byte{}
	files, err := answers.ReadDir("testdata/answers")
	if err != nil {
		panic(err) // the files are embedded
	}
	for _, f := range files {
		data, err := answers.ReadFile(path.Join("testdata/answers", f.Name()))
		if err != nil {
			panic(err)
		}
		all[strings.TrimSuffix(f.Name(), ".json")] = data
	}
	return all
}
