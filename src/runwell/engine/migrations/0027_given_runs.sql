-- A request for runs that is sent again while it is still carried out.

-- Whether a worker has runs of this request by now. Volatile, so that it sees what was committed since
-- the statement that asks began.
CREATE FUNCTION has_given_runs(of_worker_id bigint, of_request_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (
        SELECT FROM runs r
        WHERE r.worker_id = of_worker_id AND r.dequeue_request_id = of_request_id
            AND r.execution_status = 'PENDING_EXECUTING'
    );
END
$$;
