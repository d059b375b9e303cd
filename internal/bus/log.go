package bus

import (
	"fmt"
	"strings"
	"unicode"
)

// logger hands on what the server says. Names and subjects in it come from whoever connects.
type logger struct {
	to func(Level, string)
}

func (l logger) say(level Level, format string, args []any) {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	// These warn of what is meant so, at every start; TestStartWarnsOfNothing would see them change.
	if level == Warning && (strings.Contains(text, "should utilize a System Account") || strings.Contains(text, `not using "TLS Handshake First"`)) {
		return
	}
	// The server has no codes for these, only these words; TestRefusalsAreToldApart would see them change.
	for _, s := range []string{"Violation", "authentication error", "Authentication Expired", "Authentication Revoked"} {
		if level != Info && strings.Contains(text, s) {
			level = Refused
		}
	}
	l.to(level, text)
}

func (l logger) Noticef(format string, args ...any) { l.say(Info, format, args) }
func (l logger) Warnf(format string, args ...any)   { l.say(Warning, format, args) }
func (l logger) Fatalf(format string, args ...any)  { l.say(Error, format, args) }
func (l logger) Errorf(format string, args ...any)  { l.say(Error, format, args) }
func (l logger) Debugf(string, ...any)              {}
func (l logger) Tracef(string, ...any)              {}
