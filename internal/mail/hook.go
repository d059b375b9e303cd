package mail

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Post sends body as JSON to a webhook. A non-empty token is sent as a bearer
// token. Post follows no redirect. Errors contain only the host of the
// address, because the rest may hold a secret.
func Post(ctx context.Context, address, token string, body any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("webhook: its address does not parse")
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", u.Host, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("webhook %s: its address is no URL", u.Host)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text would contain the whole address
		}
		return fmt.Errorf("webhook %s: %w", u.Host, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be reused
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("webhook %s: it answers %d", u.Host, res.StatusCode)
	}
	return nil
}
