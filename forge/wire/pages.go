package wire

// Page is how many entries to ask for on a page: the maximum of GitHub and GitLab.
const Page = 100

// few is how few entries on the newest page make us read the one before too.
const few = Page / 2

// Newest reads the end of a list that a forge gives oldest first and in no other order: at least the newest 50 entries,
// oldest first. read answers page n, from 1, and how many pages there are; the first is read in any case, since it says
// so, and at most two more.
func Newest[T any](read func(n int) (page []T, pages int, err error)) ([]T, error) {
	list, last, err := read(1)
	if err != nil || last <= 1 {
		return list, err
	}
	newest, _, err := read(last)
	if err != nil {
		return nil, err
	}
	switch {
	case len(newest) >= few:
		list = nil
	case last > 2:
		if list, _, err = read(last - 1); err != nil {
			return nil, err
		}
	}
	return append(list, newest...), nil
}
