package signin

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"
)

// fakeProvider is an identity provider in the process, which can misbehave.
type fakeProvider struct {
	*httptest.Server
	now func() time.Time

	mu     sync.Mutex
	key    *rsa.PrivateKey
	kid    string
	asked  map[string]url.Values // by code
	change func(header, claims map[string]any)
	sign   func(text string) []byte // nil: RS256 by key
	replay bool                     // take a code twice
}

func newProvider(t *testing.T, now func() time.Time) *fakeProvider {
	t.Helper()
	p := &fakeProvider{now: now, asked: map[string]url.Values{}}
	p.rotate(t)
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize", "token_endpoint": p.URL + "/token", "jwks_uri": p.URL + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		reply(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": p.kid,
			"n": encode(p.key.N.Bytes()), "e": encode(big.NewInt(int64(p.key.E)).Bytes())}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, req *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		asked, ok := p.asked[req.PostFormValue("code")]
		if !p.replay {
			delete(p.asked, req.PostFormValue("code"))
		}
		sum := sha256.Sum256([]byte(req.PostFormValue("code_verifier")))
		_, secret, _ := req.BasicAuth()
		if !ok || asked.Get("code_challenge_method") != "S256" || asked.Get("code_challenge") != encode(sum[:]) || secret != url.QueryEscape("the client's secret") {
			w.WriteHeader(http.StatusBadRequest)
			reply(w, map[string]any{"error": "invalid_grant"})
			return
		}
		reply(w, map[string]any{"access_token": "x", "token_type": "Bearer", "id_token": p.token(asked.Get("nonce"))})
	})
	p.Server = httptest.NewTLSServer(mux)
	t.Cleanup(p.Close)
	return p
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// rotate replaces the signing key.
func (p *fakeProvider) rotate(t *testing.T) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.key, p.kid = key, fmt.Sprintf("key-%x", key.N.Bytes()[:4])
}

// code returns a code for the Core's request.
func (p *fakeProvider) code(asked url.Values) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	code := fmt.Sprintf("code-%d", len(p.asked))
	p.asked[code] = asked
	return code
}

// misbehave changes the tokens from now on.
func (p *fakeProvider) misbehave(change func(header, claims map[string]any), sign func(text string) []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change, p.sign = change, sign
}

// token returns an ID token. p.mu is held.
func (p *fakeProvider) token(nonce string) string {
	header := map[string]any{"alg": "RS256", "typ": "JWT", "kid": p.kid}
	claims := map[string]any{"iss": p.URL, "aud": "nightferry", "sub": "s-1", "nonce": nonce, "preferred_username": "kay@example.com",
		"iat": p.now().Unix(), "exp": p.now().Add(time.Hour).Unix(), "groups": []any{"x", "g7"}}
	if p.change != nil {
		p.change(header, claims)
	}
	h, _ := json.Marshal(header)
	c, _ := json.Marshal(claims)
	text := encode(h) + "." + encode(c)
	if p.sign != nil {
		return text + "." + encode(p.sign(text))
	}
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, p.key, crypto.SHA256, sum[:])
	if err != nil {
		panic(err)
	}
	return text + "." + encode(sig)
}

// set returns a change that sets claims; nil removes one.
func set(values map[string]any) func(header, claims map[string]any) {
	return func(_, claims map[string]any) {
		maps.Copy(claims, values)
		for name, v := range values {
			if v == nil {
				delete(claims, name)
			}
		}
	}
}

// secretOf returns a signer that uses the public key as a shared secret.
func (p *fakeProvider) secretOf(t *testing.T) func(string) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return func(text string) []byte {
		m := hmac.New(sha256.New, secret)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
}
