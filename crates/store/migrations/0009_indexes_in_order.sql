-- An index that ends with the order that is asked for: without it, SQLite takes the one that gives the order of a whole
-- component, and a push looks at every version that there is.
DROP INDEX version_by_digest;
CREATE INDEX version_by_digest ON version (digest, component, seq);
DROP INDEX version_by_number;
CREATE INDEX version_by_number ON version (component, number, seq) WHERE number IS NOT NULL;
