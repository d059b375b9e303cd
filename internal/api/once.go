package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"nightferry/internal/idempotency"
	"nightferry/internal/rights"
)

// Repeats gives a repeated request the answer of the first one. *idempotency.Service is one.
type Repeats interface {
	Do(ctx context.Context, r idempotency.Request, work func(context.Context) (answer []byte, keep bool)) ([]byte, error)
}

// answerOnce handles a call with an idempotency key. A call whose fault or lack of rights kept it from having an effect leaves
// the key free.
func (o *ServerOptions) answerOnce(c *Call, r *Route, explain func(error) *Error) *answered {
	keys := c.r.Header["Idempotency-Key"]
	if len(keys) != 1 || r.Method != http.MethodPost || r.Media == mediaLines {
		return c.failed(r, &Error{Code: "usage", Message: "this request takes no Idempotency-Key", Fix: "send one key with a POST whose answer is not a stream"}, explain)
	}
	var out *answered
	b, err := o.Repeats.Do(c.r.Context(), KeyedRequest(c.Principal, keys[0], c.r, c.body), func(ctx context.Context) ([]byte, bool) {
		out = c.answer(ctx, r, explain)
		b, err := json.Marshal(out)
		return b, err == nil && (out.err == nil || !hadNoEffect(out.err))
	})
	if err != nil {
		return c.failed(r, KeyError(err), explain)
	}
	if out != nil {
		return out
	}
	out = &answered{}
	if err := json.Unmarshal(b, out); err != nil {
		return c.failed(r, fmt.Errorf("read the first answer: %w", err), explain)
	}
	c.w.Header().Set("Idempotent-Replayed", "true")
	return out
}

// hadNoEffect reports whether a request ended before it changed anything, so that its key stays free.
func hadNoEffect(e *Error) bool { return e.Code == "usage" || e.Code == "denied" }

// KeyedRequest names a request with a key, and its principal.
func KeyedRequest(p rights.Principal, key string, req *http.Request, body []byte) idempotency.Request {
	return idempotency.Request{Key: key, Who: fmt.Sprintf("%t %s", p.Local, p.Name), What: req.Method + " " + req.URL.RequestURI() + "\n" + string(body)}
}

// KeyError explains an error of Repeats.
func KeyError(err error) error {
	switch {
	case errors.Is(err, idempotency.ErrKey):
		return &Error{Code: "usage", Message: err.Error(), Fix: "use a random key, such as a UUID"}
	case errors.Is(err, idempotency.ErrReused):
		return &Error{Code: "reused", Message: err.Error(), Fix: "use a new key for each request, and the same one only to repeat it"}
	case errors.Is(err, idempotency.ErrUnknown), errors.Is(err, idempotency.ErrTooLong):
		return &Error{Code: "incomplete", Message: err.Error(), Fix: "look at the present state, and in the audit (nightferry audit); to do it once more, use a new key"}
	}
	return err
}
