package mail

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/wneessen/go-mail"

	"nightferry/internal/durable"
)

// dropMessage writes a message into a folder atomically. The same message to the
// same recipient always has the same file name, so that a repeated delivery
// leaves one file.
func dropMessage(folder string, m Message, msg *mail.Msg) error {
	var b bytes.Buffer
	_, err := msg.WriteTo(&b)
	root, oerr := durable.Open(folder, durable.Options{Create: true})
	if err = errors.Join(err, oerr); err == nil {
		to := sha256.Sum256([]byte(m.To))
		name := fmt.Sprintf("%s-%x.eml", idSafe(m.ID), to[:4])
		err = errors.Join(root.WriteFile(name, b.Bytes(), 0o640), root.Close())
	}
	if err != nil {
		return fmt.Errorf("mail to %s into the folder %s: %w", escapeControl(m.To), folder, err)
	}
	return nil
}
