package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"
)

// watchEvery is the time between two looks of --watch.
const watchEvery = time.Second

// Control sequences of terminals (ECMA-48): ED, CUP and EL.
const (
	clearScreen = "\x1b[2J"
	goHome      = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watch shows the same thing again and again, in place, until ctx is done. A daemon that
// does not answer at first is an error; later it may be one that is restarted.
func (c *cli) watch(ctx context.Context, show func(ctx context.Context, c *cli) error) error {
	turn := time.NewTicker(cmp.Or(c.refresh, watchEvery))
	defer turn.Stop()
	for first := true; ; first = false {
		var frame bytes.Buffer
		inner := *c
		inner.stdout = &frame
		err := show(ctx, &inner)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		case err != nil:
			frame.Reset()
			fmt.Fprintf(&frame, "%v\n", err)
		}
		if err := c.draw(frame.String(), first); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
	}
}

// draw replaces what stands on the terminal. Elsewhere one frame follows the other, with an empty
// line between; programs get one document after the other.
func (c *cli) draw(frame string, first bool) error {
	switch {
	case c.json:
	case !c.terminal && !first:
		frame = "\n" + frame
	case c.terminal:
		frame = goHome + strings.ReplaceAll(frame, "\n", clearLine+"\n") + clearBelow
		if first {
			frame = clearScreen + frame
		}
	}
	_, err := fmt.Fprint(c.stdout, frame)
	return printed(err)
}
