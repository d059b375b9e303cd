// Package disktest mounts small file systems for tests of full and vanishing disks.
package disktest
