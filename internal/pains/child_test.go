package pains

import "fmt"

// child does one job in a process of its own.
func child(job string, args []string) error {
	switch job {
	default:
		return fmt.Errorf("job %q is not known", job)
	}
}
