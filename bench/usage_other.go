//go:build !linux

package main

import (
	"errors"
	"os"
)

var errLinuxOnly = errors.New("the benchmark needs Linux: it uses syncfs, Debian's packages and mke2fs")

func peakRSS(*os.ProcessState) (int64, error) { return 0, errLinuxOnly }

func syncDisk(string) error { return errLinuxOnly }

func pauseProcess(*os.Process) error    { return errLinuxOnly }
func continueProcess(*os.Process) error { return errLinuxOnly }
