package admin

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// maxSocket is the length of sun_path without its final zero (unix(7)).
const maxSocket = 107

// Config says where the API listens.
type Config struct {
	Socket string `yaml:"socket" json:"socket" doc:"Absolute path of the Unix socket of the API; its folder has to exist."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() { c.Socket = "/run/tandem/admin.sock" }

// Validate checks the config; keys are its own.
func (c Config) Validate() invalid.List {
	var l invalid.List
	switch {
	case c.Socket == "":
		l.Add("socket", "give a path, e.g. /run/tandem/admin.sock", "is empty")
	case !filepath.IsAbs(c.Socket) || strings.ContainsRune(c.Socket, 0):
		l.Add("socket", "give one that starts with /", "%q is not an absolute path", c.Socket)
	case strings.HasSuffix(c.Socket, "/"):
		l.Add("socket", "name a socket in it, e.g. "+c.Socket+"admin.sock", "%q is a folder", c.Socket)
	case len(c.Socket) > maxSocket:
		l.Add("socket", fmt.Sprintf("give a path of at most %d bytes", maxSocket), "has %d bytes", len(c.Socket))
	}
	return l
}
