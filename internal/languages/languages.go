package languages

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A Language is a programming language with a TokenStore in sdk/.
type Language struct {
	Name    string
	Threads bool // a process calls from several threads; otherwise from one
	Unix    bool // the TokenStore connects to Unix sockets

	runtimes []string // programs and files that must exist
	build    func(t testing.TB, sdk string) []string
}

// A Program is the test program of a language, in the directory test/ of its TokenStore, ready to
// be started.
type Program struct {
	Language
	args []string
}

// All returns the languages that have a TokenStore in sdk/.
func All() []Language {
	return []Language{
		{Name: "python", Threads: true, Unix: true, runtimes: []string{"python3"}, build: python},
		{Name: "node", Threads: true, Unix: true, runtimes: []string{"node"}, build: node},
		{Name: "php", Unix: true, runtimes: []string{"php"}, build: php},
		{Name: "java", Threads: true, runtimes: []string{"javac", "java", jsonJar}, build: java},
		{Name: "ruby", Threads: true, Unix: true, runtimes: []string{"ruby"}, build: ruby},
		{Name: "csharp", Threads: true, Unix: true, runtimes: []string{"mcs", "mono", newtonsoft}, build: csharp},
		{Name: "scala", Threads: true, runtimes: []string{"scalac", "java", scalaJar, jsonJar}, build: scala},
	}
}

// Python returns the Language for Python.
func Python() Language { return All()[0] }

// Need skips the test on Windows, or if a runtime of l is missing. If TOKENKEEP_REQUIRE names the
// language, a missing runtime fails the test instead.
func (l Language) Need(t testing.TB) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the programs are not tried on Windows")
	}
	for _, name := range l.runtimes {
		_, err := exec.LookPath(name)
		if filepath.IsAbs(name) {
			_, err = os.Stat(name)
		}
		if err != nil {
			l.missing(t, name)
		}
	}
}

// Build calls Need, compiles the program of l if necessary, and returns the program. If PHP lacks
// the extension curl, Build skips or fails the test, as Need does for a missing runtime. root is
// the directory of the repository.
func (l Language) Build(t testing.TB, root string) Program {
	t.Helper()
	l.Need(t)
	sdk, err := filepath.Abs(filepath.Join(root, "sdk"))
	if err != nil {
		t.Fatal(err)
	}
	if args := l.build(t, sdk); args != nil {
		return Program{Language: l, args: args}
	}
	l.missing(t, "extension curl of "+l.Name)
	return Program{}
}

// missing skips the test because a part of the environment is missing. If TOKENKEEP_REQUIRE names
// the language, missing fails the test instead. The parameter what names the part.
func (l Language) missing(t testing.TB, what string) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv("TOKENKEEP_REQUIRE"), ","), l.Name) {
		t.Fatalf("there is no %s, which TOKENKEEP_REQUIRE asks for", what)
	}
	t.Skipf("there is no %s on this machine: sdk/install.sh installs it", what)
}

func python(_ testing.TB, sdk string) []string {
	return []string{"env", "PYTHONDONTWRITEBYTECODE=1", "PYTHONPATH=" + sdk + "/python/src", "python3", sdk + "/python/test/program.py"}
}

func node(_ testing.TB, sdk string) []string { return []string{"node", sdk + "/node/test/program.js"} }

func php(t testing.TB, sdk string) []string {
	if exec.CommandContext(t.Context(), "php", "-r", "exit(extension_loaded('curl') ? 0 : 1);").Run() != nil {
		return nil
	}
	return []string{"php", sdk + "/php/test/program.php"}
}

func ruby(_ testing.TB, sdk string) []string {
	return []string{"ruby", "-I", sdk + "/ruby/lib", "-I", sdk + "/ruby/test", sdk + "/ruby/test/program.rb"}
}

// jsonJar is the path of org.json in Debian. The Java SDK depends on org.json.
const jsonJar = "/usr/share/java/com.android.json.jar"

func java(t testing.TB, sdk string) []string {
	classes := t.TempDir()
	args := []string{"-nowarn", "--release", "8", "-cp", jsonJar, "-d", classes}
	compile(t, "javac", append(args, sources(t, ".java", sdk+"/java/src/main/java", sdk+"/java/src/test/java")...))
	return jvm(classes, jsonJar)
}

// scalaJar is the path of Scala's library in Debian.
const scalaJar = "/usr/share/java/scala-library.jar"

func scala(t testing.TB, sdk string) []string {
	classes := t.TempDir()
	args := []string{"-J-XX:TieredStopAtLevel=1", "-cp", jsonJar, "-d", classes}
	compile(t, "scalac", append(args, sources(t, ".scala", sdk+"/scala/src/main/scala", sdk+"/scala/src/test/scala")...))
	return jvm(classes, scalaJar, jsonJar)
}

// jvm returns the arguments that run the class Program.
func jvm(classes ...string) []string {
	return []string{"java", "-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", strings.Join(classes, ":"), "Program"}
}

// newtonsoft is the path of Newtonsoft.Json in Debian, where mono finds the library. The C#
// SDK depends on Newtonsoft.Json.
const newtonsoft = "/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll"

func csharp(t testing.TB, sdk string) []string {
	program := filepath.Join(t.TempDir(), "program.exe")
	args := []string{"-langversion:7", "-warnaserror", "-r:" + newtonsoft, "-out:" + program}
	compile(t, "mcs", append(args, sources(t, ".cs", sdk+"/csharp/src", sdk+"/csharp/test")...))
	return []string{"mono", program}
}

func sources(t testing.TB, ext string, roots ...string) (paths []string) {
	t.Helper()
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) == ext {
				paths = append(paths, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func compile(t testing.TB, compiler string, args []string) {
	t.Helper()
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", compiler, err, out)
	}
}
