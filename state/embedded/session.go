package embedded

import (
	"context"
	"database/sql"
	"errors"
)

// session is one connection with its prepared statements; one goroutine at a time uses it.
type session struct {
	ctx        context.Context // of whoever uses it now
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

func newSession(conn *sql.Conn) *session {
	return &session{conn: conn, statements: map[string]*sql.Stmt{}}
}

// close ends the statements too: database/sql does not for those of a single connection, and SQLite keeps a connection
// with statements open, and with it the log.
func (s *session) close() error {
	var errs []error
	for _, p := range s.statements {
		errs = append(errs, p.Close())
	}
	return errors.Join(append(errs, s.conn.Close())...)
}

func (s *session) prepare(query string) (*sql.Stmt, error) {
	if p := s.statements[query]; p != nil {
		return p, nil
	}
	p, err := s.conn.PrepareContext(s.ctx, query)
	if err != nil {
		return nil, err
	}
	s.statements[query] = p
	return p, nil
}

func (s *session) exec(query string, args ...any) error {
	_, err := s.changed(query, args...)
	return err
}

// changed is exec that answers the number of rows.
func (s *session) changed(query string, args ...any) (int64, error) {
	p, err := s.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := p.ExecContext(s.ctx, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row reads the one row of a query into dest; sql.ErrNoRows if there is none.
func (s *session) row(query string, args []any, dest ...any) error {
	p, err := s.prepare(query)
	if err != nil {
		return err
	}
	return p.QueryRowContext(s.ctx, args...).Scan(dest...)
}

// all reads every row of a query with scan.
func all[T any](s *session, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	p, err := s.prepare(query)
	if err != nil {
		return nil, err
	}
	rows, err := p.QueryContext(s.ctx, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has it
	var list []T
	for rows.Next() {
		var x T
		if err := scan(rows, &x); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, rows.Err()
}
