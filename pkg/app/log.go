package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"github.com/tandem-sbc/tandem/pkg/config"
)

// newLogger writes for people on a terminal and JSON lines otherwise, unless the
// config names a format.
func newLogger(cfg config.Log, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		return nil, fmt.Errorf("log.level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	human := cfg.Format == "human"
	if cfg.Format == "auto" {
		f, ok := w.(*os.File)
		human = ok && term.IsTerminal(int(f.Fd()))
	}
	if human {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// lastError tells an error that is news from one that goes on.
type lastError string

// changes reports whether err is to be told: it is another than the one before.
func (l *lastError) changes(err error) bool {
	was := *l
	*l = ""
	if err != nil {
		*l = lastError(err.Error())
	}
	return *l != "" && *l != was
}
