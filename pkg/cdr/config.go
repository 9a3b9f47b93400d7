package cdr

import (
	"path/filepath"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/invalid"
)

// Config says where call detail records go (O3).
type Config struct {
	File      string `yaml:"file" json:"file" doc:"Absolute path of the file; its folder has to exist. One JSON object a line."`
	MaxSizeMB int    `yaml:"max_size_mb" json:"max_size_mb" range:"1-10240" doc:"Size in MB (10^6 bytes) at which the file is rotated."`
	Keep      int    `yaml:"keep" json:"keep" range:"1-1000" doc:"Rotated files that are kept: cdr.jsonl.1 is the newest."`
}

// SetDefaults fills in what the config may leave out.
func (c *Config) SetDefaults() {
	c.File = "/var/lib/tandem/cdr.jsonl"
	c.MaxSizeMB = 100
	c.Keep = 10
}

// Validate checks the config; keys are its own.
func (c Config) Validate() invalid.List {
	var l invalid.List
	switch {
	case c.File == "":
		l.Add("file", "give a path, e.g. /var/lib/tandem/cdr.jsonl", "is empty, and a call without a record cannot be billed")
	case !filepath.IsAbs(c.File) || strings.ContainsRune(c.File, 0):
		l.Add("file", "give one that starts with /", "%q is not an absolute path", c.File)
	case strings.HasSuffix(c.File, "/"):
		l.Add("file", "name a file in it, e.g. "+c.File+"cdr.jsonl", "%q is a folder", c.File)
	}
	l.Between("max_size_mb", c.MaxSizeMB, 1, 10240)
	l.Between("keep", c.Keep, 1, 1000)
	return l
}
