package bus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"time"

	"github.com/gorilla/websocket"
)

// upgradeWebSocket turns a TLS connection into a WebSocket.
func upgradeWebSocket(ctx context.Context, conn net.Conn, u *url.URL) (net.Conn, error) {
	d := websocket.Dialer{
		NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	ws, resp, err := d.DialContext(ctx, u.String(), nil)
	if err != nil {
		if resp != nil {
			resp.Body.Close()
			return nil, fmt.Errorf("WebSocket: answer %d: %w", resp.StatusCode, err)
		}
		return nil, fmt.Errorf("WebSocket: %w", err)
	}
	ws.SetReadLimit(2 * MaxPayload) // the server sends frames far smaller
	return &stream{Conn: ws}, nil
}

// stream presents the binary messages of a WebSocket as one stream of bytes.
type stream struct {
	*websocket.Conn
	rest io.Reader // rest of the current message
}

func (s *stream) Read(b []byte) (int, error) {
	for {
		if s.rest == nil {
			kind, r, err := s.NextReader()
			if err != nil {
				var end *websocket.CloseError
				if errors.As(err, &end) {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("the WebSocket server sent text")
			}
			s.rest = r
		}
		n, err := s.rest.Read(b)
		if errors.Is(err, io.EOF) {
			s.rest, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (s *stream) Write(b []byte) (int, error) {
	if err := s.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}
