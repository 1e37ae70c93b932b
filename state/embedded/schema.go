package embedded

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"

	"github.com/signalbox-ci/signalbox/state"
)

// Times are Unix milliseconds of the store's clock. What is large (document, mail, raw bodies) lives apart from the row
// that every operation rewrites. The numbers n of delivery and raw grow with time, so retention looks at their lowest only.
const schema = `
CREATE TABLE meta (
	identity  TEXT NOT NULL,           -- names the history this file holds
	raw_bytes INTEGER NOT NULL         -- sum of raw.size
) STRICT;
CREATE TABLE subject (
	id      INTEGER PRIMARY KEY,
	name    TEXT NOT NULL UNIQUE,      -- <instance>/<project>/<kind>/<key>
	version INTEGER NOT NULL DEFAULT 0,
	holder  TEXT NOT NULL DEFAULT '',  -- token of the turn that began and has not ended
	flag    INTEGER NOT NULL DEFAULT 0, -- reconcile flag: 1 up, 2 up and not yet shown by a begin
	seq     INTEGER NOT NULL DEFAULT 0, -- last number given to a mail
	unread  INTEGER NOT NULL DEFAULT 0, -- count of its rows in mail
	due     INTEGER                    -- NULL: not scheduled
) STRICT;
CREATE INDEX subject_due ON subject (due) WHERE due IS NOT NULL;
CREATE TABLE document (
	subject INTEGER PRIMARY KEY,
	doc     BLOB NOT NULL
) STRICT;
CREATE TABLE mail (
	subject INTEGER NOT NULL,
	seq     INTEGER NOT NULL,
	id      TEXT NOT NULL,
	kind    TEXT NOT NULL,
	format  INTEGER NOT NULL,
	at      INTEGER NOT NULL,
	body    BLOB NOT NULL,
	PRIMARY KEY (subject, seq)
) STRICT;
CREATE TABLE delivery (
	n  INTEGER PRIMARY KEY,
	id TEXT NOT NULL UNIQUE,
	at INTEGER NOT NULL
) STRICT;
CREATE TABLE raw (
	n    INTEGER PRIMARY KEY,
	id   TEXT NOT NULL UNIQUE,
	at   INTEGER NOT NULL,
	size INTEGER NOT NULL,             -- of body
	body BLOB NOT NULL                 -- s2
) STRICT;
CREATE TABLE place (
	name    TEXT NOT NULL,
	score   REAL NOT NULL,
	label   TEXT NOT NULL,
	subject INTEGER NOT NULL,
	PRIMARY KEY (name, score, label, subject)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX place_subject ON place (subject, name, label);
CREATE TABLE record (
	subject INTEGER NOT NULL,
	key     TEXT NOT NULL,
	expires INTEGER,                   -- NULL: stays
	value   BLOB NOT NULL,
	PRIMARY KEY (subject, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX record_expires ON record (expires) WHERE expires IS NOT NULL;
CREATE TABLE journal (
	subject INTEGER NOT NULL,
	n       INTEGER NOT NULL,          -- grows by one per line
	line    BLOB NOT NULL,
	PRIMARY KEY (subject, n)
) STRICT, WITHOUT ROWID;
`

const (
	// applicationID stands in the file's header, so that a file of another program is never taken for ours.
	applicationID = 0x53424f58
	// version is the format of the tables above. New code upgrades an older one; an older program refuses a newer.
	version = 1
)

// checkSchema answers the format of the file, 0 for an empty one.
func checkSchema(ctx context.Context, conn *sql.Conn) (int, error) {
	var app, found, tables int
	if err := conn.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), "+
		"(SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)").Scan(&app, &found, &tables); err != nil {
		return 0, err
	}
	switch {
	case app == 0 && found == 0 && tables == 0:
		return 0, nil
	case app != applicationID:
		return 0, fmt.Errorf("it is a database of another program")
	case found > version:
		return 0, fmt.Errorf("it has format %d, this program knows %d: %w", found, version, state.ErrTooNew)
	}
	return found, nil
}

// createSchema lays the tables into an empty file, all or nothing.
func createSchema(ctx context.Context, conn *sql.Conn) error {
	statements := fmt.Sprintf("BEGIN IMMEDIATE; %s INSERT INTO meta VALUES ('%s', 0); PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
		schema, rand.Text(), applicationID, version)
	_, err := conn.ExecContext(ctx, statements)
	return err
}
