package bus

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// logger forwards the server's log lines. Connecting clients choose the names and subjects in them.
type logger struct {
	to      func(Level, string)
	refused func(text string, shown *Grant)
	server  *server.Server
}

func (l logger) writeLog(level Level, format string, args []any) {
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, fmt.Sprintf(format, args...))
	text = claimedAddress.ReplaceAllString(text, "$1")
	// These warn of intended settings at every start; TestStartWarnsOfNothing would detect a
	// change.
	if level == Warning && (strings.Contains(text, "should utilize a System Account") || strings.Contains(text, `not using "TLS Handshake First"`)) {
		return
	}
	// The server has no codes for these, only these words; the tests in permission_test.go would detect a change.
	for _, s := range []string{"Violation", "authentication error", "Authentication Expired", "Authentication Revoked"} {
		if level != Info && strings.Contains(text, s) {
			level = Refused
		}
	}
	l.to(level, text)
	if level == Refused && l.refused != nil {
		l.refused(text, l.findGrant(text))
	}
}

// claimedAddress matches the address that a WebSocket client claims in a header, which the server logs before the real
// one. It is removed: the client can choose it.
var claimedAddress = regexp.MustCompile(`^\S+/(\S+ - wid:)`)

// connection matches the start of the server's lines about one connection.
var connection = regexp.MustCompile(`^\S+ - [cw]id:([0-9]+) - `)

// findGrant returns the content of the credential of the connection in a line, or nil if there is none. The server logs
// a refusal before it forgets the connection, and holds no lock meanwhile.
func (l logger) findGrant(text string) *Grant {
	m := connection.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	id, err := strconv.ParseUint(m[1], 10, 64)
	if err != nil {
		return nil
	}
	c := l.server.GetClient(id)
	if c == nil {
		return nil
	}
	g, err := ReadGrant(c.GetOpts().JWT)
	if err != nil {
		return nil
	}
	if strings.Contains(text, "authentication error") { // else the server may hold the connection's lock
		g.Proven = hasSigned(g.Public, c.GetNonce(), c.GetOpts().Sig)
	}
	return &g
}

// hasSigned reports whether a client has signed the server's nonce with a user's key. The server itself checks that only for
// a credential whose issuer it knows.
func hasSigned(public string, nonce []byte, signature string) bool {
	sig, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		return false
	}
	key, err := nkeys.FromPublicKey(public)
	return err == nil && len(nonce) > 0 && key.Verify(nonce, sig) == nil
}

func (l logger) Noticef(format string, args ...any) { l.writeLog(Info, format, args) }
func (l logger) Warnf(format string, args ...any)   { l.writeLog(Warning, format, args) }
func (l logger) Fatalf(format string, args ...any)  { l.writeLog(Error, format, args) }
func (l logger) Errorf(format string, args ...any)  { l.writeLog(Error, format, args) }
func (l logger) Debugf(string, ...any)              {}
func (l logger) Tracef(string, ...any)              {}
