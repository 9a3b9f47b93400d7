package ipsec

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ask makes sure of charon and lists its SAs, also if it cannot be brought in line with the config.
func (k *keeper) ask(ctx context.Context, now time.Time) ([]ikeSA, error) {
	if err := k.reach(ctx, now); err != nil {
		return nil, err
	}
	if err := k.update(ctx, now); silent(err) {
		return nil, k.deaf(ctx, err)
	} else if ctx.Err() == nil {
		k.refused(err)
	}
	sas, err := k.client.sas(ctx)
	if err != nil {
		return nil, k.deaf(ctx, err)
	}
	k.silent = 0
	if err := k.rotate(ctx); err != nil {
		k.log.Warn("log of charon is not cut", "realm", k.realm.Name, "error", err)
	}
	// What charon has said about them counts before what is missing is tried again.
	for _, e := range k.watcher.drain() {
		k.notice(e, now)
	}
	return sas, nil
}

// deaf takes in that charon did not answer: a few times in a row are taken for a hung
// process, which is killed. What it has put into the kernel goes on.
func (k *keeper) deaf(ctx context.Context, err error) error {
	k.disconnect()
	if ctx.Err() != nil || !silent(err) {
		return err
	}
	if k.silent++; k.silent < maxSilent {
		return err
	}
	k.silent = 0
	k.log.Warn("charon does not answer and is killed", "realm", k.realm.Name, "process", k.charon.process.pid)
	return errors.Join(err, k.charon.end(false))
}

// refused logs once what keeps charon from being in line with the config; it is tried again
// with each look.
func (k *keeper) refused(err error) {
	told := ""
	if err != nil {
		told = err.Error()
	}
	if told != "" && told != k.told {
		k.log.Warn("charon is not in line with the config", "realm", k.realm.Name, "error", err)
	}
	k.told = told
}

func (k *keeper) disconnect() {
	for _, c := range []*client{k.client, k.watcher} {
		if c == nil {
			continue
		}
		if err := c.close(); err != nil {
			k.log.Debug("close of VICI", "realm", k.realm.Name, "error", err)
		}
	}
	k.client, k.watcher = nil, nil
}

// reach makes sure that a charon runs in the realm's namespace, and is connected.
func (k *keeper) reach(ctx context.Context, now time.Time) error {
	if k.client == nil {
		if err := k.connect(ctx, now); err != nil {
			return err
		}
		k.stale = true
	}
	if in, err := k.charon.inPlace(); err != nil {
		return err
	} else if !in {
		k.log.Warn("charon is in a namespace that was deleted, and is replaced", "realm", k.realm.Name)
		k.disconnect()
		if err := k.charon.end(false); err != nil {
			return err
		}
		return k.reach(ctx, now)
	}
	return nil
}

// update brings charon in line with the config where that has changed.
func (k *keeper) update(ctx context.Context, now time.Time) error {
	if !k.stale && !k.reviewDue(now) {
		return nil
	}
	err := k.load(ctx, now)
	k.stale = err != nil
	return err
}

// reviewDue is true if credentials that could not be used are to be read again.
func (k *keeper) reviewDue(now time.Time) bool {
	for _, t := range k.tunnels {
		if t.Keying != IKE {
			continue
		}
		if t.blocked != nil && !now.Before(t.next) {
			return true
		}
		if t.blocked == nil && !t.until.IsZero() && now.After(t.until) {
			return true
		}
	}
	return false
}

// connect connects to the charon that runs, or to one that it starts where nobody listens.
func (k *keeper) connect(ctx context.Context, now time.Time) error {
	err := k.dial(ctx)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT) {
		return k.deaf(ctx, err)
	}
	if now.Before(k.startAt) {
		return err
	}
	// One without a socket keeps IKE's port from another.
	if err := k.charon.end(false); err != nil {
		return err
	}
	k.starts++
	k.startAt = now.Add(min(time.Duration(k.starts)*time.Second, 10*time.Second))
	if err := k.charon.start(ctx, k.ike()[0].IKE); err != nil {
		return err
	}
	if err := k.dial(ctx); err != nil {
		return err
	}
	k.log.Info("charon is started", "realm", k.realm.Name, "process", k.charon.process.pid)
	return nil
}

func (k *keeper) dial(ctx context.Context) error {
	c, err := dial(ctx, k.charon.socket(), listings[:1])
	if err != nil {
		return err
	}
	w, err := dial(ctx, k.charon.socket(), notices)
	if err != nil {
		return errors.Join(err, c.close())
	}
	if err := k.charon.found(c.pid); err != nil {
		return errors.Join(err, c.close(), w.close())
	}
	if err := k.charon.keep(); err != nil {
		k.log.Warn("charon's process is not kept in its file", "realm", k.realm.Name, "error", err)
	}
	k.client, k.watcher = c, w
	if k.charon.process != k.met {
		k.met = k.charon.process
		for _, t := range k.tunnels {
			t.current.ike.ID = "" // the next charon counts from 1 again
		}
	}
	return nil
}

// load brings charon in line with the config, and changes nothing that is in line.
func (k *keeper) load(ctx context.Context, now time.Time) error {
	// Our own files are no reason to do without charon.
	if err := k.settings(ctx); silent(err) {
		return err
	} else if err != nil {
		k.log.Warn("settings of charon are not renewed", "realm", k.realm.Name, "error", err)
	}
	if k.record.Process != k.charon.process.String() {
		k.record = readRecord(k.charon.file(loadedFile), k.charon.process)
	}
	l := loader{client: k.client, inner: k.realm.Inner, record: k.record, now: now}
	err := l.load(ctx, k.ike())
	if err := k.record.write(k.charon.file(loadedFile)); err != nil {
		k.log.Warn("what charon has been told is not kept for the next daemon", "realm", k.realm.Name, "error", err)
	}
	for _, name := range l.replaced {
		if !slices.Contains(k.replaced, name) {
			k.replaced = append(k.replaced, name)
		}
	}
	for _, name := range l.old {
		k.log.Warn("first keys of the tunnel are without perfect forward secrecy: strongSwan is too old for childless IKE_SAs; install 6.0",
			"realm", k.realm.Name, "tunnel", name)
	}
	for _, t := range k.tunnels {
		if t.Keying != IKE {
			continue
		}
		blocked := l.failed[t.Name]
		t.until = l.until[t.Name]
		if blocked != nil {
			t.next = now.Add(blockedRetry)
		} else if t.blocked != nil {
			t.next = time.Time{}
		}
		t.blocked = blocked
	}
	if silent(err) {
		return err
	}
	return errors.Join(err, k.retire(ctx))
}

// settings writes strongswan.conf anew and has it read, if it is another one now.
func (k *keeper) settings(ctx context.Context) error {
	want := settings(k.charon.folder, k.ike()[0].IKE)
	have, err := os.ReadFile(k.charon.file(settingsFile))
	if err == nil && string(have) == want {
		return nil
	}
	if err := writeFile(k.charon.file(settingsFile), []byte(want)); err != nil {
		return err
	}
	_, err = k.client.call(ctx, "reload-settings", nil)
	return err
}

// rotate keeps charon's log within bounds: it is on a file system in memory.
func (k *keeper) rotate(ctx context.Context) error {
	info, err := os.Stat(k.charon.file(logFile))
	if err != nil || info.Size() <= maxLog {
		return nil // a log that was removed takes no room
	}
	if err := os.Rename(k.charon.file(logFile), k.charon.file(oldLogFile)); err != nil {
		return err
	}
	_, err = k.client.call(ctx, "reload-settings", nil)
	return err
}

// retire ends the SAs of connections that were changed or are not wanted. Until it has, they stay
// on the list.
func (k *keeper) retire(ctx context.Context) error {
	if len(k.replaced) == 0 {
		return nil
	}
	sas, err := k.client.sas(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range k.replaced {
		for _, s := range sas {
			if s.Name == name {
				k.log.Info("tunnel is ended, since its config has changed", "realm", k.realm.Name, "tunnel", name)
				errs = append(errs, k.client.terminate(ctx, "ike-id", s.ID, false))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	k.replaced = nil
	return nil
}
