package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal opens a pseudo-terminal: the side of the user, and the side of programs.
func openTerminal(t *testing.T) (user, terminal *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this machine has no pseudo-terminals")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = user.Close() })
	if err := unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = terminal.Close() })
	return user, terminal
}

// settings returns the settings of a terminal.
func settings(t *testing.T, terminal *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

// A session is a run of the program at a terminal of its own.
type session struct {
	t        *testing.T
	cmd      *exec.Cmd
	user     *os.File
	terminal *os.File
	before   unix.Termios

	mu    sync.Mutex
	shown bytes.Buffer  // the characters that the terminal has shown
	more  chan struct{} // gets a value after each change of shown
}

// atTerminal starts the program at a new terminal.
func atTerminal(t *testing.T, e env, args ...string) *session {
	t.Helper()
	s := &session{t: t, cmd: process(t, e, args...), more: make(chan struct{}, 1)}
	s.user, s.terminal = openTerminal(t)
	s.before = settings(t, s.terminal)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = s.terminal, s.terminal, s.terminal
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.watch()
	return s
}

// watch collects the characters that the terminal shows.
func (s *session) watch() {
	buf := make([]byte, 4<<10)
	for {
		n, err := s.user.Read(buf)
		s.mu.Lock()
		s.shown.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default: // waitFor has not seen the previous change either
		}
		if err != nil {
			return
		}
	}
}

// screen returns the characters that the terminal has shown.
func (s *session) screen() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown.String()
}

// waitFor waits until the terminal shows text.
func (s *session) waitFor(text string) {
	s.t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(s.screen(), text) {
		select {
		case <-s.more:
		case <-deadline:
			s.t.Fatalf("%q does not appear in %q", text, s.screen())
		}
	}
}

// types sends text to the program, as if the user typed or pasted the text.
func (s *session) types(text string) {
	s.t.Helper()
	if _, err := s.user.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end of the program, and checks its exit code and the settings of the
// terminal. It returns the characters that the terminal has shown.
func (s *session) ends(code int) string {
	s.t.Helper()
	_ = s.cmd.Wait()
	if _, err := s.terminal.WriteString("[end]"); err != nil {
		s.t.Fatal(err)
	}
	s.waitFor("[end]")
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d: %s", got, code, s.screen())
	}
	if after := settings(s.t, s.terminal); after != s.before {
		s.t.Errorf("the settings of the terminal are %+v, and were %+v", after, s.before)
	}
	return s.screen()
}

// asks returns the characters with which a terminal shows a prompt.
func asks(p prompt) string { return "tokenkeep: " + p.ask + "\n\r" }

var askRecord = asks(typedRecord)

// TestSaveAtTerminal checks that save asks for a record, hides and saves the text that a user
// pastes, and restores the terminal.
func TestSaveAtTerminal(t *testing.T) {
	t.Parallel()
	long := "s3cret-" + strings.Repeat("x", 20_000)
	for name, test := range map[string]struct {
		typed string
		token string // the access token that is saved
	}{
		"one line":               {`{"user_name":"ann","access_token":"s3cret"}` + "\r", "s3cret"},
		"without Enter":          {`{"user_name":"ann","access_token":"s3cret"}`, "s3cret"},
		"several lines":          {"{\r  \"user_name\": \"ann\",\r\n  \"access_token\": \"s3cret}\"\r}\r", "s3cret}"},
		"a line of 20,000 bytes": {`{"user_name":"ann","access_token":"` + long + `"}` + "\r", long},
		"quotes and brackets":    {`{"user_name":"ann","access_token":"s3cret\"}]"}`, `s3cret"}]`},
		"corrected":              {`{"user_name":"x` + "\x15" + `{"user_name":"ann","access_token":"s3crexé` + "\x7f\bt" + `"}`, "s3cret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := fileStoreEnv(t)
			s := atTerminal(t, e, "save")
			s.waitFor(askRecord)
			s.types(test.typed)
			screen := s.ends(0)
			if strings.Contains(screen, "s3c") || strings.Count(screen, askRecord) != 1 || !strings.Contains(screen, "\rtokenkeep: read ") {
				t.Errorf("the terminal shows %q", screen)
			}
			got := decode[recordJSON](t, e.ok(t, "", "get", "--user", "ann", "--reveal", "--json"))
			if string(got.AccessToken) != test.token {
				t.Errorf("the token has %d bytes: %.20q", len(got.AccessToken), got.AccessToken)
			}
		})
	}
}

// TestSaveAtTerminal_NotSaved checks that an incomplete or canceled text is not shown and not
// saved, and that the terminal is restored.
func TestSaveAtTerminal_NotSaved(t *testing.T) {
	t.Parallel()
	const record = `{"user_name":"ann","access_token":"s3cret"}`
	for name, test := range map[string]struct {
		typed  string
		signal os.Signal // sent after the text
		code   int
		want   string // a part of the message
	}{
		"nothing":                  {typed: "\x04", code: 2, want: "standard input is empty"},
		"no JSON":                  {typed: "s3cret\r\x04" + record, code: 6, want: "the input is not JSON"},
		"ended too early":          {typed: record[:30] + "\x04", code: 6, want: "the input is not JSON"},
		"a fault before the end":   {typed: `{"access_token":"s3cret",}`, code: 6, want: "the input is not JSON"},
		"two records":              {typed: record + "\r" + record, code: 6, want: "the input is not JSON"},
		"Ctrl-C":                   {typed: record[:30] + "\x03", code: 130},
		"Ctrl-C after Ctrl-D":      {typed: record[:30] + "\x04\x03", code: 130},
		"Ctrl-backslash":           {typed: "\x1c", code: 130},
		"an interrupt":             {typed: record[:30], signal: os.Interrupt, code: 130},
		"SIGTERM":                  {typed: record[:30], signal: syscall.SIGTERM, code: 130},
		"longer than every record": {typed: `{"access_token":"s3cret` + strings.Repeat("x", maxRecord) + `"}`, code: 6, want: "longer than 4 MiB"},
		"a JSON array":             {typed: `["s3cret"]`, code: 6, want: "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := fileStoreEnv(t)
			s := atTerminal(t, e, "save")
			s.waitFor(askRecord)
			s.types(test.typed)
			if test.signal != nil {
				if err := s.cmd.Process.Signal(test.signal); err != nil {
					t.Fatal(err)
				}
			}
			screen := s.ends(test.code)
			if strings.Contains(screen, "s3c") || !strings.Contains(screen, test.want) {
				t.Errorf("the terminal shows %q", screen)
			}
			if _, err := os.Stat(strings.TrimPrefix(e[envStore], "file:")); err == nil {
				t.Error("there is a store")
			}
		})
	}
}

// TestTerminalInput checks that get, import and login also hide the text that a user pastes.
func TestTerminalInput(t *testing.T) {
	t.Parallel()

	t.Run("get", func(t *testing.T) {
		t.Parallel()
		e := fileStoreEnv(t)
		e.ok(t, `{"user_name":"ann","access_token":"s3cret"}`, "save")
		s := atTerminal(t, e, "get", "--like", "-")
		s.waitFor(askRecord)
		s.types(`{"access_token":"s3cret"}` + "\r")
		if screen := s.ends(0); strings.Contains(screen, "s3c") || !strings.Contains(screen, "ann") {
			t.Errorf("the terminal shows %q", screen)
		}
	})

	t.Run("import", func(t *testing.T) {
		t.Parallel()
		e := fileStoreEnv(t)
		s := atTerminal(t, e, "import", "-")
		s.waitFor(asks(typedFile))
		s.types("id,user_name,client_id,client_secret,refresh_token,access_token,grant_token,expiry_time,redirect_url,api_domain\r" +
			"1,ann,c,,s3cret,,,,,\r2,bob,c,,s3cret2,,,,,\r\x04")
		if screen := s.ends(0); strings.Contains(screen, "s3c") || !strings.Contains(screen, "imported 2 of 2: 2 new") {
			t.Errorf("the terminal shows %q", screen)
		}
	})

	t.Run("login", func(t *testing.T) {
		t.Parallel()
		e := fileStoreEnv(t).with(envClientSecret, "secret")
		const back = "https://app.example.com/callback"
		s := atTerminal(t, e, "login", "--client", "1000.C", "--user", "ann", "--data-center", "eu", "--scope", "ZohoCRM.modules.ALL", "--redirect-url", back)
		s.waitFor(asks(typedAddress))
		s.types(back + "?code=s3cret&state=other\r")
		if screen := s.ends(6); strings.Contains(screen, "s3c") || !strings.Contains(screen, "differs from that of the request") {
			t.Errorf("the terminal shows %q", screen)
		}
	})
}
