package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// enableEscapes makes a console obey escape sequences, which Windows Server
// 2016 and later can, but do only when asked.
func enableEscapes(f *os.File) bool {
	var mode uint32
	h := windows.Handle(f.Fd())
	if windows.GetConsoleMode(h, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(h, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
