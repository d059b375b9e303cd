package clock

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Seconds is a duration that JSON represents in seconds, such as 1.5.
type Seconds time.Duration

// MarshalJSON implements json.Marshaler.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.Abs(f) > math.MaxInt64/2/float64(time.Second) {
		return fmt.Errorf("%q: want seconds", b)
	}
	*s = Seconds(math.Round(f * float64(time.Second)))
	return nil
}
