package cli

import (
	"cmp"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// module is the path of the module that contains this package.
const module = "github.com/tokenkeep/tokenkeep"

// version returns the version of this module in the program, or "(devel)" if the version is
// unknown.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)"
	}
	return versionIn(info)
}

// versionIn returns the version of this module in a program, or "(devel)" if the version is
// unknown. The program can belong to another module, whose version can be different.
func versionIn(info *debug.BuildInfo) string {
	in := &info.Main
	for _, dep := range info.Deps {
		if dep.Path == module {
			in = dep
		}
	}
	if in.Replace != nil {
		in = in.Replace
	}
	return cmp.Or(in.Version, "(devel)")
}

// built returns the commit from which the program was built, and the time of that commit. Both
// are empty if the build has no such information, or if the program belongs to another module.
func built() (commit, date string) {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Path != module {
		return "", ""
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			date = s.Value
		}
	}
	return commit, date
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and its date",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			commit, date := built()
			if a.json {
				return a.printJSON(map[string]string{
					"version": version(), "commit": commit, "date": date,
					"go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			a.printf("tokenkeep %s, %s, %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			if commit != "" {
				a.printf("commit %s of %s\n", commit, date)
			}
			return nil
		},
	}
}
