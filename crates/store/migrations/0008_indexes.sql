-- An index has the rows that are found by it, and no more of them than that.
DROP INDEX version_of_digest;
DROP INDEX version_by_digest;
CREATE INDEX version_by_digest ON version (digest, component);
DROP INDEX version_by_number;
CREATE INDEX version_by_number ON version (component, number) WHERE number IS NOT NULL;
DROP INDEX manifest_by_subject;
CREATE INDEX manifest_by_subject ON manifest (component, subject, digest) WHERE subject IS NOT NULL;
