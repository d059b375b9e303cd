package main

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"nightferry/internal/digest"
	"nightferry/internal/durable"
)

// targetsDir is the folder of the state folder that remembers which targets this
// account has filled, each in a file of its own. A target whose volume is absent
// looks like one that was never filled, so this is kept outside of it.
const targetsDir = "targets"

// targetFile names the file of one target and one channel.
func targetFile(dir, channel string) (string, error) {
	abs, err := filepath.Abs(dir)
	return digest.Of([]byte(channel + "\x00" + abs)).String(), err
}

// targetRecorded reports whether a pull of this account has brought the channel to a folder.
func targetRecorded(stateDir, dir, channel string) (held bool, err error) {
	err = inState(stateDir, dir, channel, func(state *durable.Root, name string) error {
		_, err := state.Lstat(name)
		held = err == nil
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return held, err
}

// recordTarget remembers that a pull has brought the channel to a folder.
func recordTarget(stateDir, dir, channel string) error {
	return inState(stateDir, dir, channel, func(state *durable.Root, name string) error {
		return state.WriteStream(name, 0o600, func(w io.Writer) error {
			_, err := io.WriteString(w, channel+" in "+dir+"\n")
			return err
		})
	})
}

func inState(stateDir, dir, channel string, fn func(state *durable.Root, name string) error) error {
	folder, err := stateFolder(stateDir)
	if err != nil {
		return err
	}
	name, err := targetFile(dir, channel)
	if err != nil {
		return err
	}
	folder = filepath.Join(folder, targetsDir)
	if err := durable.MkdirPrivate(folder); err != nil {
		return err
	}
	state, err := durable.Open(folder, durable.Options{Trusted: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(state, name), state.Close())
}
