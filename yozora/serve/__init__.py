"""The service: a drop-in Videos API and Yozora's own, durable jobs, accounts and files.

One process with SQLite and a folder, or many machines that share PostgreSQL and a bucket: `settings` says which. A
request becomes a job (`jobs`), a job runs as a durable workflow (`workflow`, `steps`) on whichever worker (`worker`) is
free. Everything here needs the extra: pip install 'yozora[serve]'.
"""
