package vmlab

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// outcome is what has come out of a machine. guest.sh says on the channel "status":
// "running" when it starts the command, and at its end "exit CODE OUT ERR" with the
// numbers of bytes on the two other channels, which may still be under way.
type outcome struct {
	// complete is called once, when the exit code and all output are there.
	complete func()

	mu              sync.Mutex
	running, exited bool
	code            uint8
	want, got       [2]uint64 // of out and err
	line            strings.Builder
}

// maxStatus is longer than any line of guest.sh.
const maxStatus = 100

// status takes what comes by the channel "status".
func (o *outcome) status(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, b := range p {
		if b != '\n' && o.line.Len() < maxStatus {
			o.line.WriteByte(b)
			continue
		}
		if err := o.say(o.line.String()); err != nil {
			return 0, err
		}
		o.line.Reset()
	}
	return len(p), nil
}

func (o *outcome) say(line string) error {
	if line == "running" {
		o.running = true
		return nil
	}
	if _, err := fmt.Sscanf(line, "exit %d %d %d", &o.code, &o.want[0], &o.want[1]); err != nil || o.exited {
		return fmt.Errorf("unexpected words from the machine: %q", line)
	}
	o.exited = true
	o.check()
	return nil
}

// count adds to the bytes that came by one of the output channels.
func (o *outcome) count(channel, n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.got[channel] += uint64(n)
	o.check()
}

func (o *outcome) check() {
	if o.exited && o.got == o.want {
		o.complete()
	}
}

// counted is the sink of an output channel.
type counted struct {
	io.Writer
	outcome *outcome
	channel int // 0 out, 1 err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.outcome.count(c.channel, n)
	return n, err
}

// writerFunc is a function as [io.Writer].
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// tailSize is enough for a kernel's last words.
const tailSize = 8 << 10

// tail keeps the end of what is written to it. Several may write.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if extra := len(t.b) - tailSize; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

// lines are the last n lines at most, without what would steer a terminal.
func (t *tail) lines(n int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, string(t.b)))
	if text == "" {
		return "(nothing)"
	}
	all := strings.Split(text, "\n")
	return strings.Join(all[max(0, len(all)-n):], "\n")
}
