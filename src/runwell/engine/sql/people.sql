-- name: find_local_secret
-- What the token of the server's own machine is made of.
SELECT secret FROM signing_keys WHERE name = 'local_token';

-- name: ensure_user
-- A user by their address, made when there is none.
INSERT INTO users AS u (public_id, email, created_at) VALUES (:public_id, :email, :now)
ON CONFLICT (email) DO UPDATE SET email = u.email
RETURNING u.id;

-- name: join_all_organizations
-- Make a user an owner of every organisation.
INSERT INTO organization_members (organization_id, user_id, role, created_at)
SELECT id, :user_id, 'owner', :now FROM organizations
ON CONFLICT (organization_id, user_id) DO NOTHING;

-- name: join_organizations
-- Make a user a member of the organisations that another one owns; says whether there are any.
WITH owned AS (
    SELECT organization_id FROM organization_members WHERE user_id = :owner_id AND role = 'owner'
), joined AS (
    INSERT INTO organization_members (organization_id, user_id, created_at)
    SELECT organization_id, :user_id, :now FROM owned
    ON CONFLICT (organization_id, user_id) DO NOTHING
)
SELECT EXISTS (SELECT FROM owned);

-- name: insert_token
-- A personal access token; one that is there stays as it is, and no row comes back.
INSERT INTO personal_access_tokens
    (public_id, user_id, name, token_hash, obfuscated, created_at, expires_at)
VALUES (:public_id, :user_id, :name, :token_hash, :obfuscated, :now, :expires_at)
ON CONFLICT (token_hash) DO NOTHING
RETURNING public_id, name, obfuscated, created_at, expires_at;

-- name: find_person
-- Whose living token has a hash.
SELECT u.id, u.public_id, u.email
FROM personal_access_tokens t
JOIN users u ON u.id = t.user_id
WHERE t.token_hash = :token_hash AND (t.expires_at IS NULL OR t.expires_at > :now);

-- name: count_tokens
-- How many tokens a user has.
SELECT count(*)::integer FROM personal_access_tokens WHERE user_id = :user_id;

-- name: list_tokens
-- The tokens of a user, the newest first.
SELECT public_id, name, obfuscated, created_at, expires_at FROM personal_access_tokens
WHERE user_id = :user_id ORDER BY id DESC;

-- name: delete_token
-- Revoke a token of a user.
DELETE FROM personal_access_tokens WHERE user_id = :user_id AND public_id = :public_id
RETURNING true;

-- name: list_projects
-- The projects of a user's organisations, or the one of them that has a ref.
SELECT p.public_id AS id, p.ref, p.name, p.slug, p.created_at, o.public_id AS organization_id,
    o.name AS organization_name, o.slug AS organization_slug,
    o.created_at AS organization_created_at
FROM organization_members m
JOIN organizations o ON o.id = m.organization_id
JOIN projects p ON p.organization_id = o.id
WHERE m.user_id = :user_id AND (:ref::text IS NULL OR p.ref = :ref)
ORDER BY p.id;

-- name: list_environments
-- The environments of a project of a user's organisations.
SELECT e.id
FROM organization_members m
JOIN projects p ON p.organization_id = m.organization_id
JOIN environments e ON e.project_id = p.id
WHERE m.user_id = :user_id AND p.ref = :ref
ORDER BY e.id;
