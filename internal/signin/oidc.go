package signin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"nightferry/internal/ledger"
	"nightferry/internal/text"
)

// pendingCookie keeps a sign-in that is under way in the browser, so that the Core keeps nothing for people whom it does
// not know.
const pendingCookie = "__Host-nightferry-signin"

// pendingFor bounds how long a sign-in takes.
const pendingFor = 10 * time.Minute

// pending is a sign-in that is under way.
type pending struct {
	State, Nonce, Verifier, To string
	Until                      time.Time
}

// once remembers the sign-ins that have ended, so that none counts twice.
type once struct {
	mu   sync.Mutex
	used map[[32]byte]time.Time // by nonce, until when
}

// take reports whether a nonce is used for the first time.
func (o *once) take(nonce string, now time.Time) bool {
	hash := sha256.Sum256([]byte(nonce))
	o.mu.Lock()
	defer o.mu.Unlock()
	for h, until := range o.used {
		if now.After(until) {
			delete(o.used, h)
		}
	}
	if _, again := o.used[hash]; again || len(o.used) >= maxAll {
		return false
	}
	if o.used == nil {
		o.used = map[[32]byte]time.Time{}
	}
	o.used[hash] = now.Add(pendingFor)
	return true
}

// openProvider returns the provider's client and its configuration.
func (s *Service) openProvider(req *http.Request) (*client, *oauth2.Config, error) {
	settings := s.o.Settings()
	if settings == nil {
		return nil, nil, &LinkError{"No identity provider is configured.", "On the Core's machine: nightferry console link."}
	}
	c, err := s.oidc.open(req.Context(), settings, s.o.Secret, s.o.Now())
	if err != nil {
		return nil, nil, err
	}
	return c, c.config(s.o.URL), nil
}

// Forget lets the next sign-in read the secret and the provider's documents again.
func (s *Service) Forget() { s.oidc.forget() }

// goToProvider begins a sign-in.
func (s *Service) goToProvider(w http.ResponseWriter, req *http.Request) {
	_, config, err := s.openProvider(req)
	if err != nil {
		s.showError(w, http.StatusBadGateway, err)
		return
	}
	p := pending{State: newSecret(), Nonce: newSecret(), Verifier: oauth2.GenerateVerifier(), To: safePath(req.URL.Query().Get("to")), Until: s.o.Now().Add(pendingFor)}
	b, err := json.Marshal(p)
	if err != nil {
		s.showError(w, http.StatusInternalServerError, err)
		return
	}
	setCookie(w, pendingCookie, base64.RawURLEncoding.EncodeToString(b), int(pendingFor/time.Second))
	http.Redirect(w, req, config.AuthCodeURL(p.State, oidc.Nonce(p.Nonce), oauth2.S256ChallengeOption(p.Verifier)), http.StatusSeeOther)
}

// errForeign is of an answer of the provider that belongs to no sign-in of this browser.
var errForeign = &LinkError{"This answer of the identity provider is not of a sign-in that this browser has begun, or it comes too late.", "Sign in again."}

// pendingOf returns the sign-in that a request of a browser continues.
func (s *Service) pendingOf(req *http.Request) (*pending, error) {
	c, err := req.Cookie(pendingCookie)
	if err != nil {
		return nil, errForeign
	}
	var p pending
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || json.Unmarshal(b, &p) != nil {
		return nil, errForeign
	}
	left := p.Until.Sub(s.o.Now())
	if state := req.URL.Query().Get("state"); p.State == "" || subtle.ConstantTimeCompare([]byte(p.State), []byte(state)) != 1 || left <= 0 || left > pendingFor {
		return nil, errForeign
	}
	return &p, nil
}

// comeBack ends a sign-in.
func (s *Service) comeBack(w http.ResponseWriter, req *http.Request) {
	setCookie(w, pendingCookie, "", -1)
	to, err := s.signIn(w, req)
	if err != nil {
		s.auditRefusal(req, err)
		code := http.StatusForbidden
		if errors.As(err, new(*ProviderError)) {
			code = http.StatusBadGateway
		}
		s.showError(w, code, err)
		return
	}
	http.Redirect(w, req, to, http.StatusSeeOther)
}

func (s *Service) signIn(w http.ResponseWriter, req *http.Request) (to string, err error) {
	p, err := s.pendingOf(req)
	if err != nil {
		return "", err
	}
	c, config, err := s.openProvider(req)
	if err != nil {
		return "", err
	}
	q := req.URL.Query()
	if code := q.Get("error"); code != "" {
		return "", &ProviderError{c.settings.Issuer, fmt.Errorf("it answers %.64q: %.200q", code, q.Get("error_description"))}
	}
	token, err := c.exchange(req.Context(), config, q.Get("code"), p, s.o.Now)
	if err != nil {
		return "", &ProviderError{c.settings.Issuer, err}
	}
	if !s.ended.take(p.Nonce, s.o.Now()) {
		return "", errForeign
	}
	values, err := valuesOf(token, c.settings.Claim)
	if err != nil {
		return "", err
	}
	role, scope := c.settings.grant(values)
	if role == 0 {
		return "", &ClaimError{fmt.Sprintf("None of the %d values of %q in your token has a role here.", len(values), c.settings.Claim), "Ask an administrator of the Core to name one of them in signin.roles, or the administrator of the identity provider to give you another."}
	}
	subject, _ := token["sub"].(string) // exchange has seen to it
	who := personOf(token)
	detail := fmt.Sprintf("role %s over %s, subject %q, from %s", role, scope, text.Bound(subject, maxValueSize), req.RemoteAddr)
	if err := s.o.Audit(req.Context(), who, "sign in", "console", detail); err != nil {
		return "", fmt.Errorf("the Core cannot record this: %w", err)
	}
	return safePath(p.To), s.start(req.Context(), w, req, ledger.Session{Person: who, Subject: c.settings.Issuer + " " + text.Bound(subject, maxValueSize)}, claims{Values: values})
}

// refusalEvery bounds the audit entries about refused sign-ins, which anyone can cause.
const refusalEvery = time.Minute

func (s *Service) auditRefusal(req *http.Request, err error) {
	now := s.o.Now()
	s.mu.Lock()
	fresh := now.Sub(s.refused) >= refusalEvery || now.Before(s.refused)
	if fresh {
		s.refused = now
	}
	s.mu.Unlock()
	if fresh {
		_ = s.o.Audit(req.Context(), "sign-in", "refused", "console", text.Bound(err.Error(), 512)+", from "+req.RemoteAddr) // the refusal stands without it
	}
}
