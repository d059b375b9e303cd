package signin

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"nightferry/internal/rights"
)

// Settings name an identity provider, and the roles of its people.
type Settings struct {
	Issuer   string // https URL, as in its discovery document
	ClientID string
	CAFile   string // authority of its certificate; empty: those of the system
	Claim    string // of the ID token, whose values the grants name: roles, groups, or a path such as realm_access.roles
	Grants   []Grant
}

// Grant gives the people who have a value of the claim a role.
type Grant struct {
	Value string
	Role  rights.Role
	Scope rights.Scope
}

// grant returns the role of the first grant whose value is among values. Without one the role is zero.
func (s *Settings) grant(values []string) (rights.Role, rights.Scope) {
	for _, g := range s.Grants {
		if slices.Contains(values, g.Value) {
			return g.Role, g.Scope
		}
	}
	return 0, rights.Scope{}
}

// Bounds of a token's claims.
const (
	maxValues    = 1000
	maxValueSize = 256 // bytes
	maxNameSize  = 128
)

// ClaimError means that an ID token does not contain a person's roles.
type ClaimError struct{ Text, Fix string }

func (e *ClaimError) Error() string { return e.Text }

// Remedy returns the next step.
func (e *ClaimError) Remedy() string { return e.Fix }

// valuesOf returns the values of a claim. A token that has too many groups to list them is an error: it would look like
// one without groups.
func valuesOf(token map[string]any, claim string) ([]string, error) {
	names, _ := token["_claim_names"].(map[string]any)
	_, elsewhere := names[claim]
	if more := token["hasgroups"]; claim == "groups" && (more == true || more == "true") {
		elsewhere = true
	}
	if elsewhere {
		return nil, &ClaimError{fmt.Sprintf("Your account has more values of %q than fit into a token, so your roles are unknown.", claim),
			"Ask the administrator of the identity provider to send only the groups that are assigned to this application, or to use app roles (claim: roles)."}
	}
	var out []string
	switch v := lookUp(token, claim).(type) {
	case string:
		out = []string{v}
	case []any:
		for _, x := range v {
			text, ok := x.(string)
			if !ok {
				return nil, &ClaimError{fmt.Sprintf("The claim %q of your token is no list of texts.", claim), "Name another claim in signin.claim of the Core's configuration."}
			}
			out = append(out, text)
		}
	default:
		return nil, &ClaimError{fmt.Sprintf("Your token has no claim %q, so you have no role here.", claim), "Ask the administrator of the identity provider to give you a role, and to send the claim in the ID token; or name another claim in signin.claim of the Core's configuration."}
	}
	if len(out) > maxValues || slices.ContainsFunc(out, func(v string) bool { return len(v) > maxValueSize }) {
		return nil, &ClaimError{fmt.Sprintf("The claim %q of your token has too many values, or too long ones: at most %d of %d bytes.", claim, maxValues, maxValueSize), "Ask the administrator of the identity provider to send only the groups that are assigned to this application."}
	}
	return out, nil
}

// lookUp returns a claim by its name, or by a path of names with dots.
func lookUp(token map[string]any, claim string) any {
	if v, ok := token[claim]; ok {
		return v
	}
	first, rest, ok := strings.Cut(claim, ".")
	inner, _ := token[first].(map[string]any)
	if !ok || inner == nil {
		return nil
	}
	return lookUp(inner, rest)
}

// personOf returns the name of a token's person for the audit. It holds nothing that could forge a line of it.
func personOf(token map[string]any) string {
	for _, claim := range []string{"preferred_username", "upn", "email", "name", "sub"} {
		v, _ := token[claim].(string)
		v = strings.Map(func(r rune) rune {
			if r <= ' ' || r == '(' || r == ')' || !isPlain(r) {
				return -1
			}
			return r
		}, v)
		if len(v) > maxNameSize {
			v = strings.ToValidUTF8(v[:maxNameSize], "")
		}
		if v != "" {
			return "user " + v
		}
	}
	return "user"
}

// isPlain reports whether a character shows as itself: no control character, no mark of direction.
func isPlain(r rune) bool {
	b, err := json.Marshal(string(r))
	return err == nil && len(b) > 0 && r != 0xfffd && r != 0x7f && (r < 0x80 || r > 0x9f) && (r < 0x200b || r > 0x200f) && (r < 0x2028 || r > 0x202e) && (r < 0x2060 || r > 0x206f) && r != 0xfeff && r != 0x61c
}
