// Package sipp runs SIPp 3.6.1 or 3.7.3 (sip-tester of Debian 12 and 13) as the SIP peers
// of a lab: scenarios, audio that can be compared byte for byte, and SIPp's own statistics.
//
// What SIPp's rtp_stream does, measured, since the scenarios stand on it:
//
//   - [rtpstream_audio_port] in the SDP names the port that RTP is sent from, so RTP is
//     symmetric. 3.6.1 has one socket per process, bound to -mi and -mp, for all its calls;
//     3.7.3 has one per call, at even ports from -mp on, and [media_port] is the first.
//     [auto_media_port] would name ports that nothing sends from.
//   - A file of n*160 bytes becomes exactly n packets of 20 ms: sequence numbers from
//     0, no marker, timestamps by the clock, UDP checksums, DSCP 0, no RTCP. SSRCs count up
//     by call; in 3.6.1 they start at 0xCA110000 in every process.
//   - It starts when the scenario does so, catches up in a burst when the thread was
//     late, and is cut off by the end of the call. So calls outlast their audio.
//   - What arrives is never read.
//
// Callees answer OPTIONS outside of calls: the gateway asks before it sends calls. SIPp
// counts each as a call, a successful one.
package sipp

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// Scenario is what a SIPp process does with each call.
type Scenario string

// The scenarios. Those of callers begin with "uac", those of callees with "uas".
const (
	// Call talks and ends the call; CallAndWait leaves the end to the callee.
	Call        Scenario = "uac"
	CallAndWait Scenario = "uac-wait"
	// CallSignal has no media and ends the call at once.
	CallSignal Scenario = "uac-signal"
	// CallAndCancel cancels, Config.Talk after the first 180.
	CallAndCancel Scenario = "uac-cancel"
	// CallBusy, CallUnavailable and CallUnanswered expect 486, 503, and 408 or 480.
	CallBusy        Scenario = "uac-busy"
	CallUnavailable Scenario = "uac-unavailable"
	CallUnanswered  Scenario = "uac-unanswered"
	// CallAndHold talks, holds (sendonly), resumes, talks and ends.
	CallAndHold Scenario = "uac-hold"

	// Answer talks and waits for the end; AnswerAndEnd ends the call.
	Answer       Scenario = "uas"
	AnswerAndEnd Scenario = "uas-ends"
	// AnswerSignal has no media.
	AnswerSignal Scenario = "uas-signal"
	// AnswerHold is the callee of CallAndHold.
	AnswerHold Scenario = "uas-hold"
	// Ring never answers and expects a CANCEL; Busy answers 486, Unavailable 503.
	Ring        Scenario = "uas-ring"
	Busy        Scenario = "uas-busy"
	Unavailable Scenario = "uas-unavailable"
)

func (s Scenario) calls() bool { return strings.HasPrefix(string(s), "uac") }

// talk is the default of Config.Talk.
func (s Scenario) talk(audio Audio) time.Duration {
	switch s {
	case CallSignal:
		return 0
	case CallAndCancel:
		return 500 * time.Millisecond
	default:
		return audio.Duration() + talkMargin
	}
}

//go:embed scenarios/*.xml
var scenarios embed.FS

// options is how a callee answers OPTIONS in the place of an INVITE.
//
//go:embed options.xml
var options []byte

// probed adds to a callee's scenario that it answers OPTIONS.
func probed(xml []byte) []byte {
	start := bytes.Index(xml, []byte("  <recv request=\"INVITE\""))
	// A label needs something behind it.
	answer := append(bytes.Clone(options), "  <timewait milliseconds=\"1\"/>\n"...)
	end := bytes.Index(xml, []byte("  <Reference"))
	if end < 0 {
		end = bytes.Index(xml, []byte("</scenario>"))
	}
	if wait := bytes.Index(xml, []byte("  <timewait")); wait >= 0 {
		answer, end = options, wait
	}
	return slices.Concat(xml[:start], []byte("  <recv request=\"OPTIONS\" optional=\"true\" next=\"probed\"/>\n"),
		xml[start:end], answer, xml[end:])
}

// rtpCheckFailed is how SIPp from 3.7 on ends when the RTP it sent did not come back to it as it
// was: its own idea of a check, for peers that echo. Ours do not, and what they get is compared
// from captures.
const rtpCheckFailed = 253

// talkMargin is how much longer than its audio a call lasts: rtp_stream starts late
// and stutters on a busy machine.
const talkMargin = time.Second

// Config of one SIPp process.
type Config struct {
	Scenario Scenario
	// Local is the address for SIP and RTP; SIPPort defaults to 5060, MediaPort to 6000.
	// Every process on a host needs its own of both; 3.7.3 takes an even port a call from
	// MediaPort on.
	Local     netip.Addr
	SIPPort   uint16
	MediaPort uint16
	// Remote is where a caller sends its requests.
	Remote netip.AddrPort
	// Number is what a caller calls, followed by the number of the call from 1. No two
	// processes of a test may call the same.
	Number string
	// Calls after which the process ends; 0 means that it goes on until stopped.
	Calls int
	// Rate is a caller's calls per second; default 1.
	Rate float64
	// Concurrent bounds a caller's calls at a time; 0 leaves SIPp's own bound.
	Concurrent int
	// Audio is what each call sends. The zero value sends a second of silence's stand-in.
	Audio Audio
	// Talk is how long the side that ends the call waits before it does. By default
	// that is the length of the audio and a margin, half a second for CallAndCancel,
	// and nothing for CallSignal.
	Talk time.Duration
	// Args are further arguments for SIPp.
	Args []string
}

// Agent is a SIPp process.
type Agent struct {
	*netlab.Process
	Config Config

	dir    string
	output *bytes.Buffer // read it only when the process is done
}

// Start runs SIPp in a host of the lab. It is ready for calls when Start returns, if
// it is a callee.
func Start(ctx context.Context, lab *netlab.Lab, host string, c Config) (*Agent, error) {
	c.SIPPort = cmp.Or(c.SIPPort, 5060)
	c.MediaPort = cmp.Or(c.MediaPort, 6000)
	c.Rate = cmp.Or(c.Rate, 1)
	c.Audio = cmp.Or(c.Audio, Audio{Packets: 50})
	c.Talk = cmp.Or(c.Talk, c.Scenario.talk(c.Audio))
	dir, err := os.MkdirTemp(lab.Dir(), "sipp-*")
	if err != nil {
		return nil, fmt.Errorf("sipp: %w", err)
	}
	a := &Agent{Config: c, dir: dir, output: new(bytes.Buffer)}
	if err := a.writeFiles(); err != nil {
		return nil, fmt.Errorf("sipp: %w", err)
	}
	a.Process = lab.Command(ctx, host, "sipp", a.args()...)
	a.Dir = dir
	a.Stdout, a.Stderr = a.output, a.output
	if err := a.Process.Start(); err != nil {
		return nil, err
	}
	if !c.Scenario.calls() {
		if err := a.listening(ctx, lab, host); err != nil {
			return nil, errors.Join(err, a.Process.Stop(syscall.SIGKILL, time.Second))
		}
	}
	return a, nil
}

func (a *Agent) writeFiles() error {
	xml, err := scenarios.ReadFile("scenarios/" + string(a.Config.Scenario) + ".xml")
	if err != nil {
		return fmt.Errorf("no scenario %q: %w", a.Config.Scenario, err)
	}
	if !a.Config.Scenario.calls() {
		xml = probed(xml)
	}
	if err := os.WriteFile(filepath.Join(a.dir, "scenario.xml"), xml, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.dir, "audio.pcma"), a.Config.Audio.Bytes(), 0o644)
}

func (a *Agent) args() []string {
	c := a.Config
	args := []string{
		"-sf", "scenario.xml", "-nostdin",
		"-i", c.Local.String(), "-p", strconv.Itoa(int(c.SIPPort)),
		"-mi", c.Local.String(), "-mp", strconv.Itoa(int(c.MediaPort)),
		"-d", strconv.FormatInt(c.Talk.Milliseconds(), 10),
		"-trace_stat", "-stf", "stat.csv", "-fd", "1", // seconds
		"-trace_err", "-error_file", "errors.log",
		"-buff_size", strconv.Itoa(4 << 20), // one socket takes the bursts of all calls
		"-max_recv_loops", "1000", "-timer_resol", "1",
	}
	if c.Calls > 0 {
		args = append(args, "-m", strconv.Itoa(c.Calls))
	}
	if c.Scenario.calls() {
		args = append(args,
			"-r", strconv.FormatFloat(c.Rate, 'f', -1, 64),
			"-key", "number", c.Number)
		if c.Concurrent > 0 {
			args = append(args, "-l", strconv.Itoa(c.Concurrent))
		}
	}
	args = append(args, c.Args...)
	if c.Scenario.calls() {
		args = append(args, c.Remote.String())
	}
	return args
}

// listening waits until the process has its SIP socket.
func (a *Agent) listening(ctx context.Context, lab *netlab.Lab, host string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	// The kernel's own list: an attempt to bind the port would be in SIPp's way.
	addr := a.Config.Local.As4()
	want := fmt.Sprintf("%02X%02X%02X%02X:%04X", addr[3], addr[2], addr[1], addr[0], a.Config.SIPPort)
	for {
		var table []byte
		err := lab.Do(host, func() error {
			var err error
			table, err = os.ReadFile("/proc/thread-self/net/udp")
			return err
		})
		if err != nil {
			return fmt.Errorf("sipp: %w", err)
		}
		if bytes.Contains(table, []byte(want)) {
			return nil
		}
		select {
		case <-a.Done():
			return a.failure(a.Process.Wait())
		case <-ctx.Done():
			return fmt.Errorf("sipp %s in %s does not listen: %w", a.Config.Scenario, host, ctx.Err())
		case <-tick.C:
		}
	}
}

// Wait returns when the process has ended by itself, with its statistics. It is an
// error when a call failed, or when SIPp did.
func (a *Agent) Wait() (Stats, error) {
	err := a.Process.Wait()
	stats, statsErr := a.Stats()
	switch {
	case err == nil || a.ExitCode() == rtpCheckFailed && stats.Failed == 0:
		return stats, statsErr
	default: // the failure says more than what is wrong with the statistics
		return stats, a.failure(err)
	}
}

// Stop lets a process finish its calls, at most for the grace, and ends it. Only
// failed calls and trouble with SIPp itself are errors.
func (a *Agent) Stop(grace time.Duration) (Stats, error) {
	// SIGUSR1 is SIPp's "finish and exit"; it then ends with 99 when there was no call.
	err := a.Process.Stop(syscall.SIGUSR1, grace)
	stats, statsErr := a.Stats()
	switch code := a.ExitCode(); {
	case err != nil || code <= 0 || code == 99 || code == rtpCheckFailed && stats.Failed == 0:
	default:
		err = a.failure(a.Process.Wait())
	}
	return stats, errors.Join(err, statsErr)
}

// Stats reads SIPp's statistics; while it runs they are up to a second old.
func (a *Agent) Stats() (Stats, error) {
	data, err := os.ReadFile(filepath.Join(a.dir, "stat.csv"))
	if errors.Is(err, os.ErrNotExist) {
		return Stats{}, nil // SIPp writes the first line after a second
	}
	if err != nil {
		return Stats{}, fmt.Errorf("sipp: %w", err)
	}
	return parseStats(data)
}

// failure explains how a process ended, with the first of what it complained about.
func (a *Agent) failure(err error) error {
	if err == nil {
		err = errors.New("it ended too early")
	}
	said, readErr := os.ReadFile(filepath.Join(a.dir, "errors.log"))
	if readErr != nil || len(said) == 0 {
		// Without an error file, the last lines of the output have the reason.
		said = a.output.Bytes()
		said = said[max(0, len(said)-1000):]
	}
	return fmt.Errorf("sipp %s: %w: %s", a.Config.Scenario, err, bytes.TrimSpace(said[:min(len(said), 3000)]))
}
