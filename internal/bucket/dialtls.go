package bucket

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	handshakeTime = 20 * time.Second
	// askPlainAfter is how long a server may leave a TLS greeting unanswered
	// before the dialer tests whether it speaks plain http.
	askPlainAfter = 2 * time.Second
)

// errPlainHTTP means that a server at an https endpoint speaks http.
var errPlainHTTP = errors.New("the server speaks http, not https")

// dialTLS returns a dialer for https endpoints that recognizes a plain http
// server. Such a server may reject the TLS greeting in http, which the client
// misses if the connection is reset first. It may also wait for the end of the
// line, which a greeting need not contain. So the dialer sends such a server a
// request in http.
func dialTLS(dial dialFunc, conf *tls.Config) dialFunc {
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := conf.Clone()
		if c.ServerName == "" {
			c.ServerName, _, _ = net.SplitHostPort(addr)
		}
		conn := tls.Client(raw, c)
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		if err = greetTLS(ctx, conn, func() bool { return speaksHTTP(ctx, dial, network, addr) }); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return conn, nil
	}
}

// greetTLS performs the handshake, and calls plain once if the server leaves the
// greeting unanswered or breaks the connection.
func greetTLS(ctx context.Context, conn *tls.Conn, plain func() bool) error {
	hctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	var err error // of the handshake, once done is closed
	go func() {
		defer close(done)
		err = conn.HandshakeContext(hctx)
	}()
	patience := time.NewTimer(askPlainAfter)
	defer patience.Stop()
	select {
	case <-done:
		var header tls.RecordHeaderError
		switch {
		case errors.As(err, &header) && string(header.RecordHeader[:]) == "HTTP/":
			return errPlainHTTP
		case ctx.Err() == nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errReset)) && plain():
			return errPlainHTTP
		}
		return err
	case <-patience.C:
	}
	if plain() {
		cancel()
		<-done
		return errPlainHTTP
	}
	<-done
	return err
}

// speaksHTTP reports whether a server answers a plain http request. A TLS server
// answers one with 400, if at all.
func speaksHTTP(ctx context.Context, dial dialFunc, network, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, askPlainAfter)
	defer cancel()
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() // ends the read below
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.0\r\nHost: %s\r\n\r\n", addr); err != nil {
		return false
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode != http.StatusBadRequest
}
