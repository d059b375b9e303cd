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
	"strings"
)

// Hook is where alerts are posted. Both fields are secrets: many services put the credential into the path.
type Hook struct {
	URL   string
	Token string // bearer token; empty: none is sent
}

// ParseHook reads a URL and an optional bearer token, separated by white space. Its errors contain neither.
func ParseHook(text string) (Hook, error) {
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 2 {
		return Hook{}, errors.New("want the webhook's URL and, if it needs one, a bearer token, separated by a space")
	}
	u, err := url.Parse(words[0])
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return Hook{}, errors.New("want https://HOST/PATH as the webhook's URL, or http:// within a trusted network")
	}
	return Hook{words[0], strings.Join(words[1:], "")}, nil
}

// Post sends body as JSON. It follows no redirect. Errors contain only the host of the URL.
func (h Hook) Post(ctx context.Context, body any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(b))
	if err != nil {
		return errors.New("webhook: its URL does not parse") // err contains the URL
	}
	host := req.URL.Host
	req.Header.Set("Content-Type", "application/json")
	if h.Token != "" {
		req.Header.Set("Authorization", "Bearer "+h.Token)
	}
	c := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer c.CloseIdleConnections()
	res, err := c.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // its text would contain the whole address
		}
		return fmt.Errorf("webhook %s: %w", host, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<20)) // so that the connection can be reused
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("webhook %s: it answers %d", host, res.StatusCode)
	}
	return nil
}
