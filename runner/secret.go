package runner

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"google.golang.org/protobuf/proto"
)

// sealing makes what payloads are sealed with at rest: AES-256-GCM under a key derived from the server's. A payload
// lives as long as its task is open, so there is one key and no ring: tasks that were open when the key was changed can
// be handed out no more, and their jobs come back when their leases run out.
func sealing(key []byte) (cipher.AEAD, error) {
	k, err := hkdf.Key(sha256.New, key, nil, "signalbox/runner/payload", 32)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal binds a payload to its task: no other task's record can stand in for it.
func (s *Service) seal(task int64, payload []byte) []byte {
	return s.sealed.Seal(nil, nil, payload, []byte(s.pool.String()+"#"+payloadRecord(task)))
}

func (s *Service) open(task int64, record []byte) (*runnerv1.Task, error) {
	b, err := s.sealed.Open(nil, nil, record, []byte(s.pool.String()+"#"+payloadRecord(task)))
	if err != nil {
		return nil, fmt.Errorf("open the payload of task %d: it was sealed under another SIGNALBOX_SECRET_KEY", task)
	}
	var out runnerv1.Task
	if err := proto.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("decode the payload of task %d: %w", task, err)
	}
	return &out, nil
}

// MinSecret is the length in bytes of the shortest value that can be masked without garbling a log.
const MinSecret = 8

const masked = "***"

// mask is what must not be seen in a log: the values of secrets as they look there. A stock runner masks too, but only
// whole values within one row, and nobody knows what runs at the other end.
type mask struct {
	values []string // hidden also where they are cut
	words  []string // hidden whole: nobody prints them but a runner
}

// newMask hides each value, and of one with several lines also each line that is long enough; and words.
func newMask(secrets map[string]string, words ...string) mask {
	m := mask{words: words}
	for _, v := range secrets {
		lines := strings.Split(v, "\n")
		for i := range lines {
			lines[i] = strings.TrimSpace(shown(lines[i]))
		}
		for _, needle := range append(lines, strings.Join(lines, "")) {
			if len(needle) >= MinSecret && !slices.Contains(m.values, needle) {
				m.values = append(m.values, needle)
			}
		}
	}
	return m
}

// over hides what it must in lines, also where a value goes on in the next ones. Of the lines at the end that may be the
// beginning of a value it says how many, for what follows them is not known yet.
func (m mask) over(lines []string) (open int) {
	all := strings.Join(lines, "")
	hidden := make([]bool, len(all))
	tail := 0
	for i, needle := range slices.Concat(m.values, m.words) {
		for from := 0; ; from++ {
			at := strings.Index(all[from:], needle)
			if at < 0 {
				break
			}
			from += at
			for k := range needle {
				hidden[from+k] = true
			}
		}
		for n := min(len(needle)-1, len(all)); i < len(m.values) && n > tail; n-- {
			if strings.HasSuffix(all, needle[:n]) {
				tail = n
			}
		}
	}
	at := 0
	for i, l := range lines {
		var b strings.Builder
		for k := range len(l) {
			switch {
			case !hidden[at+k]:
				b.WriteByte(l[k])
			case k == 0 || !hidden[at+k-1]:
				b.WriteString(masked)
			}
		}
		at += len(l)
		lines[i] = b.String()
		if at > len(all)-tail {
			open++
		}
	}
	return open
}
