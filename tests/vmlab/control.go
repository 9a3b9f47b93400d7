package vmlab

import (
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

//go:embed guest.sh
var guestScript []byte

// share is a folder that the machine sees at its own path.
type share struct{ tag, path string }

// Folders of the guest that a share of the same path would hide.
var guestsOwn = []string{
	"/", "/bin", "/dev", "/etc", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr",
	"/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/var", "/var/lib",
}

// Commands in these are the guest's.
var guestsCommands = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"}

// shares are the folders that the command needs: the module, and where the command itself
// lies. go test builds below the temporary folder and has the test write there.
func (o *Options) shares() ([]share, error) {
	list := []share{{"share0", o.Share}}
	if name := o.Command[0]; strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(o.Dir, name)
		}
		dir := filepath.Dir(name)
		if !within(dir, o.Share) && !slices.Contains(guestsCommands, dir) {
			list = append(list, share{"share1", dir})
		}
	}
	for _, s := range list {
		if slices.Contains(guestsOwn, s.path) {
			return nil, fmt.Errorf("the machine has a %s of its own: what it is to see must lie in a folder below", s.path)
		}
	}
	if !within(o.Dir, o.Share) {
		return nil, fmt.Errorf("the working directory %s is not in %s, which the machine sees", o.Dir, o.Share)
	}
	return list, nil
}

func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// writeControl fills the folder that guest.sh reads.
func writeControl(dir string, o Options, shares []share) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	var mounts strings.Builder
	for _, s := range shares {
		fmt.Fprintf(&mounts, "%s %s\n", s.tag, s.path)
	}
	files := map[string][]byte{
		"guest.sh": guestScript,
		"shares":   []byte(mounts.String()),
		"command":  []byte(commandScript(o, os.Environ())),
	}
	if sameWriter(o.Stdout, o.Stderr) {
		files["merge"] = nil
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// commandScript is the command for the guest's shell.
func commandScript(o Options, environ []string) string {
	var b strings.Builder
	exportVariable(&b, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	exportVariable(&b, "HOME=/root")
	exportVariable(&b, "LANG=C.UTF-8")
	for _, v := range environ {
		if strings.HasPrefix(v, "GO") || strings.HasPrefix(v, "TANDEM_") {
			exportVariable(&b, v)
		}
	}
	for _, v := range o.Env {
		exportVariable(&b, v)
	}
	fmt.Fprintf(&b, "cd %s || exit 126\nexec", quote(o.Dir))
	for _, arg := range o.Command {
		b.WriteString(" " + quote(arg))
	}
	b.WriteString("\n")
	return b.String()
}

func exportVariable(b *strings.Builder, variable string) {
	if name, value, ok := strings.Cut(variable, "="); ok {
		fmt.Fprintf(b, "export %s=%s\n", name, quote(value))
	}
}

// quote makes one word of the POSIX shell of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// sameWriter: what goes to a and to b ends up in one file or pipe.
func sameWriter(a, b io.Writer) bool {
	fa, okA := a.(*os.File)
	fb, okB := b.(*os.File)
	if !okA || !okB {
		return !okA && !okB && reflect.TypeOf(a).Comparable() && a == b
	}
	ia, errA := fa.Stat()
	ib, errB := fb.Stat()
	return errA == nil && errB == nil && os.SameFile(ia, ib)
}
