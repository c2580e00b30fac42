"""The rows of the tables of hostile inputs in ``docs/security.md``."""

from __future__ import annotations

from support.attack_rows import READ, Row, decoder, service, tested

H, D = "unit/audio/test_hostile.py::", "unit/audio/test_damage.py::"
A, S = "unit/audio/test_attacks.py::", "api/test_server.py::"
URL, GUARD = "unit/outbound/test_urls.py::", "unit/outbound/test_ssrf_guard.py::"
DOWN, HOOK = "unit/outbound/test_download.py::", "unit/outbound/test_webhooks.py::"
ACCESS, JOBS = "api/test_access.py::", "api/test_jobs.py::"
LOGS, FORM = "unit/observability/test_logs.py::", "api/test_form.py::"
INV, WORK = "unit/formats/test_invariants.py::", "unit/jobs/workers/test_worker_process.py::"
NEMO, ARCH = "unit/engines/nemo/test_loading.py::", "unit/engines/nemo/test_archive.py::"
ROBUST, SQL = "e2e/test_robustness.py::", "unit/jobs/db/test_sqlite.py::"

TABLES: dict[str, tuple[Row, ...]] = {
    "Playlists and scripts that lead elsewhere": (
        decoder("not_audio", "An HLS playlist with the absolute path of another user's recording"),
        decoder("not_audio", "An `ffconcat` script that names a file in the same folder"),
        decoder("not_audio", "An HLS playlist with `/etc/passwd` or a `file://` URL"),
        tested(
            "HLS, `ffconcat`, DASH, ASX or M3U with `http://127.0.0.1`",
            "`not_audio`, and no connection is opened",
            A + "test_no_playlist_opens_a_connection",
        ),
        decoder("not_audio", "SDP that leads to an RTP stream"),
        decoder(READ, "A file whose name is `concat:a.wav|b.wav`", "FFmpeg gets an open file, and no name"),
        decoder(READ, "A file whose name is `subfile,,start,0,end,1000,,:x.wav`", "as above"),
        decoder(READ, "A file whose name is `data:audio`", "as above"),
        tested(
            "A playlist that passes the list of formats",
            "It can open nothing: the only protocol is `fd`",
            H + "test_a_playlist_past_the_format_list_still_opens_nothing",
        ),
    ),
    "Files that ask for too much": (
        decoder("unsupported_audio", "A WAV file with a sample rate of 1 Hz"),
        decoder("audio_too_long", "Hours of silence in a small FLAC file", "more than `MAX_DURATION_S`"),
        decoder("audio_too_long", "Hours of silence in a small AAC or M4A file", "more than `MAX_DURATION_S`"),
        decoder("corrupt_audio", "A WAV file with 1,000 or 65,535 channels"),
        decoder("unsupported_audio", "A WAV file with 64 channels"),
        decoder("empty_audio", "A WAV file without samples"),
        decoder("corrupt_audio", "A WAV file whose samples are NaN or infinite", "a few of them become zeros"),
        decoder("not_audio", "A picture"),
        decoder("not_audio", "Text"),
        decoder("not_audio", "A program (ELF)"),
        decoder("empty_audio", "An empty file"),
        decoder("corrupt_audio", "972 bytes of Matroska with two packets 14,000 s apart", "almost all of it is a gap"),
        decoder("corrupt_audio", "A W64 file of 64 bytes with a chunk of 2^63 bytes"),
        tested(
            "A file that makes the decoder use too much memory or time",
            "The decoder process ends at its limit: `corrupt_audio` or `decoder_failed`",
            "unit/audio/test_decoder_process.py::test_memory_is_limited_and_the_error_names_the_limit",
            "unit/audio/test_decoder_process.py::test_a_real_recording_that_takes_too_long",
        ),
    ),
    "Containers": (
        decoder("corrupt_audio", "A truncated MP3 file", "with `partial=accept` it is read as far as it goes"),
        decoder("corrupt_audio", "A truncated M4A file without its index"),
        decoder("not_audio", "An MP4 file with video alone"),
        decoder(READ, "Two audio tracks", "the default one, unless `track` says otherwise"),
        decoder(READ, "A Matroska file with 1,000 tracks", "the default one"),
        decoder("empty_audio", "0.0 s"),
        decoder("empty_audio", "Less than 10 ms"),
        decoder(READ, "10 ms, 100 ms, 1 s"),
        decoder(READ, "8 kHz G.711"),
        decoder(READ, "24-bit PCM"),
        decoder(READ, "32-bit float PCM"),
        decoder(READ, "5.1 channels"),
        decoder(READ, "96 kHz"),
        decoder(READ, "A RIFF size of 0xFFFFFFFF"),
        decoder(READ, "RF64"),
        decoder(READ, "Chunks of odd sizes, and 10,000 LIST chunks"),
        decoder(READ, "An ID3 tag with 50 MB of cover art"),
        tested("Ogg streams in a row with changing rates", "Read", D + "test_chained_streams_and_changing_rates"),
        tested(
            "Timestamps that jump backwards", "Read, in order", D + "test_time_stamps_that_make_no_sense_move_nothing"
        ),
        tested(
            "DC offset, clipping, a pure tone, white noise, music, minutes of silence",
            "No words and no speakers are found where nobody speaks",
            "unit/audio/test_recordings.py::test_odd_recordings",
            ROBUST + "test_noise_has_no_words",
            ROBUST + "test_music_has_no_words",
            ROBUST + "test_digital_silence_has_no_words",
        ),
        tested(
            "Stereo with one channel inverted, so that the mix is silent",
            "Read: the louder channel replaces the mix",
            "unit/audio/test_channels.py::test_a_recording_with_one_side_inverted_is_heard",
        ),
        tested(
            "Video streams, such as MagicYUV (CVE-2026-8461)",
            "No video decoder is ever opened",
            H + "test_video_is_passed_over_and_never_decoded",
            H + "test_no_listed_decoder_is_for_video",
        ),
        tested(
            "Bit flips and truncations of honest files",
            "Read or refused, without leftovers",
            D + "test_mutated_files_are_read_or_refused",
        ),
        tested(
            "Sizes in headers that do not fit the file, up to 2^64",
            "No more is read or allocated than the file contains",
            "unit/audio/test_headers.py::test_headers_of_chunks_of_any_size",
            "unit/audio/test_headers.py::test_the_decoder_refuses_sizes_beyond_the_file",
        ),
    ),
    "Uploads and forms": (
        service("400 invalid_option", "No file part"),
        service("400 invalid_option", "An empty file name"),
        service("400 invalid_option", "A file in a field of another name"),
        service("200", "An upload in chunks, without `Content-Length`"),
        service("400 invalid_option", "A `Content-Length` that is too small"),
        service("413 upload_too_large", "A body that is too large by one byte"),
        service("413 form_too_large", "1,001 parts in a form"),
        service("413 form_too_large", "A text field of 600 kB"),
        service("413 upload_too_large", "A text field of 20 MB", "before it is read"),
        service("400 invalid_option", "The file twice"),
        service("400 invalid_option", "No boundary"),
        service("400 invalid_option", "A boundary that does not occur in the body"),
        service(
            "200", "A file name with folders (`../../etc/passwd`, `..\\..\\x`, `/abs`)", "shown as the last part alone"
        ),
        service("200", "A file name with NUL (`a\\x00b.wav`)", "shown without it"),
        service("400 invalid_option", "A file name with a line break"),
        service("200", "A file name of 4,096 characters", "shown with 255"),
        service("200", "A file name that changes the direction of text", "shown without the mark"),
        service(
            "200",
            "File names that programs take for options, protocols or devices (`-i.wav`, `concat:a|b`, `CON.wav`)",
            "no file of ours has this name",
        ),
        service("400 invalid_option", "A URL as the file (`url=http://...` beside it)"),
        service("200", "A file name that is a URL (`http://h/x.wav`)", "shown as `x.wav`, and never fetched"),
        service("200", "File names with `%2e%2e%2f`, and with emoji", "shown as they are"),
        tested(
            "An upload that arrives byte by byte",
            "408 after 30 s, plus a second for each 1,000 bytes",
            S + "test_slow_senders_are_shown_out_with_a_reason",
        ),
        tested(
            "A body over the limit that does not end",
            "413, and the connection is closed",
            S + "test_a_sender_who_does_not_stop_still_reads_the_refusal_and_is_then_cut_off",
        ),
        tested(
            "A `Content-Length` that is too large",
            "Nothing is left of the upload",
            S + "test_a_lying_content_length_that_is_too_large_leaves_nothing",
        ),
        tested(
            "Numbers of any size in `Content-Length`, chunks, `Range`, cursors and event IDs",
            "400 or 413, or ignored",
            "api/test_stated_numbers.py::test_a_content_length_that_cannot_be_is_refused",
            "api/test_stated_numbers.py::test_numbers_in_a_query_that_cannot_be_are_refused",
        ),
    ),
    "URLs and webhooks": (
        service("400 url_refused", "`http://127.0.0.1`"),
        service("400 url_refused", "`localhost`", "when its address is known, the job fails"),
        service("400 url_refused", "`[::1]`"),
        service("400 url_refused", "`0.0.0.0`"),
        service("400 url_refused", "`169.254.169.254`"),
        service("400 url_refused", "`10.0.0.0/8`, `172.16.0.0/12`, `192.168.0.0/16`"),
        service("400 url_refused", "`100.64.0.0/10`"),
        service("400 url_refused", "`[::ffff:127.0.0.1]`"),
        service("400 url_refused", "`2130706433`, `0x7f.1`, `127.1`"),
        service("400 url_refused", "`127.0.0.1.` with a final dot"),
        service("400 invalid_option", "A user name before the address (`http://good@127.0.0.1`)"),
        service("400 url_refused", "Ports of other services (22, 6379)", "the same whether or not something listens"),
        service("400 invalid_option", "`file://`, `gopher://`, `ftp://`, `dict://`"),
        service("400 url_refused", "A private address with the name of a known site in the query"),
        service("400 url_refused", "A webhook to a private address"),
        tested(
            "A redirect to a private address or to `file://`", "`url_refused`", DOWN + "test_to_where_none_may_lead"
        ),
        tested(
            "A name whose address changes between the check and the connection (DNS rebinding)",
            "The address that was checked is the one that is used",
            DOWN + "test_a_name_that_means_something_else_by_then",
            GUARD + "test_a_name_is_asked_for_once",
        ),
        tested(
            "A response that is too large or endless", "`upload_too_large`", DOWN + "test_too_large_by_its_own_word"
        ),
        tested(
            "A response that is compressed (gzip bomb)", "`url_unusable`", DOWN + "test_compressed_though_asked_not_to"
        ),
        tested(
            "A response with a wrong type", "The type is ignored", DOWN + "test_what_it_says_that_it_is_does_not_matter"
        ),
        tested(
            "A slow response", "`url_unreachable` at the time limit", DOWN + "test_the_time_is_that_of_all_together"
        ),
        tested("A webhook receiver that redirects", "Not followed", HOOK + "test_no_redirect_is_followed"),
        tested(
            "A webhook receiver that answers 500", "Tried again later", HOOK + "test_a_receiver_that_will_not_have_it"
        ),
        tested("A webhook receiver that hangs", "Ended at the time limit", HOOK + "test_a_receiver_that_hangs"),
        tested("A webhook response of 1 GB", "Not read", HOOK + "test_an_answer_without_end_is_not_read_to_it"),
        tested("A forged webhook", "Its signature does not match", HOOK + "test_what_was_touched"),
    ),
    "Access to jobs": (
        tested(
            "No key, a wrong key, a key in the wrong case, an empty bearer",
            "401 `unauthorized`, and the body is not read",
            ACCESS + "test_who_is_let_in",
            ACCESS + "test_every_route_is_closed_but_those_that_tell_how_it_is",
        ),
        tested(
            "A revoked key", "The same answer as for a wrong one", ACCESS + "test_wrong_and_revoked_keys_hear_the_same"
        ),
        service("404 job_not_found", "A job ID that was guessed"),
        service("404 job_not_found", "The result of a job ID that was guessed"),
        tested(
            "The job of another key, by any method",
            "404 `job_not_found`",
            JOBS + "test_another_owners_job_is_not_there",
        ),
        tested(
            "Finding out a key by the time of the comparison",
            "Secrets are compared by their hashes, in constant time",
            ACCESS + "test_who_is_let_in",
        ),
        tested("A key in the log", "Masked", "unit/observability/test_redaction.py::test_a_secret_is_masked"),
        tested("A CORS request from another origin", "No CORS headers", ACCESS + "test_no_other_origin_is_let_in"),
        tested(
            "More requests than may wait",
            "429 with `Retry-After`",
            S + "test_more_than_may_wait_are_refused_and_status_goes_on",
            JOBS + "test_when_the_queue_is_full",
        ),
        tested(
            "File names in `/metrics` and `/status`",
            "There are none",
            "api/test_metrics.py::test_a_path_is_that_of_its_route",
        ),
    ),
    "Injection": (
        service("400 invalid_option", "A language with a line break and a forged log line"),
        service("200", "Speaker names with markup (`<img src=x onerror=...>`)", "escaped in VTT, text elsewhere"),
        tested(
            "A forged log line or escape sequences in a path, name, field or request ID",
            "One line, without control characters",
            S + "test_nobody_writes_lines_of_the_log",
            LOGS + "test_nothing_hostile_reaches_a_plain_log",
        ),
        tested(
            "`-->`, blank lines, markup and template expressions in words and names",
            "Subtitles and RTTM are read back as they were written",
            INV + "test_srt_is_read_back_by_pysrt",
            INV + "test_vtt_is_read_back_by_webvtt",
            INV + "test_rttm_is_read_back_to_the_millisecond",
        ),
        tested(
            "Events in the words of a recording",
            "Encoded as JSON",
            "api/test_job_events.py::test_what_is_said_cannot_forge_an_event",
        ),
        tested(
            "ID3 titles with any of these",
            "Tags are not read",
            "unit/audio/test_formats.py::test_bytes_that_are_no_text_in_a_tag",
        ),
        tested(
            "The file name in `Content-Disposition`",
            "Not there: the name is the ID of the job",
            JOBS + "test_file_names_are_for_people_alone",
        ),
        tested(
            "Formulas in CSV, quotes in TextGrid, XML in DOCX",
            "Diarist writes no such format",
            INV + "test_an_unknown_format_is_refused_with_the_list",
        ),
        service("404 not_found", "A path with `../` (`/../../etc/passwd`)"),
    ),
    "Parameters": (
        service("400 invalid_option", "`num_speakers` of 0"),
        service("400 invalid_option", "`num_speakers` of -1"),
        service("200", "`num_speakers` of 1"),
        service("400 invalid_option", "`num_speakers` of 10^9"),
        service("400 invalid_option", "`num_speakers` of 1.5 or `two`"),
        service("400 invalid_option", "`min_speakers` above `max_speakers`"),
        service("400 invalid_option", "Hints that contradict each other"),
        service("400 invalid_option", "An unknown model, as a field", "models are chosen by the operator alone"),
        service("400 invalid_option", "An unknown `format`"),
        service("400 invalid_option", "`stream`, `temperature`, `hotwords` and other unknown fields"),
        service("400 invalid_option", "A speaker name equal to `SPEAKER_00`"),
        service("400 invalid_option", "Duplicate speaker names"),
        service("400 invalid_option", "References of known speakers", "there is no such field"),
        service("413 upload_too_large", "A `Content-Length` of 2^64"),
        service("400 bad_request", "Two `Content-Length` headers that differ"),
    ),
    "Processes and disks": (
        tested(
            "A worker killed with SIGKILL",
            "The job is tried again",
            WORK + "test_a_worker_killed_during_a_job_is_replaced_and_the_job_succeeds",
        ),
        tested(
            "The service killed with SIGKILL",
            "The next start takes up its jobs and removes its files",
            S + "test_a_killed_service_leaves_nothing_to_the_next_one",
            "unit/jobs/test_service.py::test_a_start_takes_up_the_jobs_of_an_earlier_run_and_keeps_their_results",
        ),
        tested(
            "SIGTERM",
            "Callers are answered, and everything ends",
            S + "test_a_signal_answers_who_waits_and_ends_everything",
        ),
        tested(
            "A disk that becomes full during an upload",
            "507 `storage_full`",
            S + "test_a_disk_that_runs_full_is_said_and_leaves_nothing",
        ),
        tested(
            "A disk that becomes full while samples or copies are written",
            "`storage_full`; `MIN_FREE_MB` stays free",
            "unit/audio/test_samples.py::test_a_full_disk_is_reported",
            "unit/audio/test_gaps.py::test_the_free_space_is_checked_while_samples_are_written",
            "unit/jobs/media/test_s3.py::test_a_copy_from_s3_leaves_free_what_must_stay_free",
            "unit/jobs/workers/test_scatter.py::test_stored_samples_leave_free_what_must_stay_free",
        ),
        tested("A disk without space for results", "`storage_full`", SQL + "test_a_full_disk_is_told_as_such"),
        tested(
            "A database that is locked",
            "503 `store_unavailable`, after a wait",
            SQL + "test_a_locked_store_is_told_as_such",
        ),
        tested(
            "A model that is missing, truncated or has a wrong hash",
            "Fetched again, or the engine is not ready",
            "unit/models/test_store.py::test_a_damaged_file_is_refused_by_name_and_mended",
        ),
        tested(
            "A model folder that cannot be written",
            "Said by name",
            "unit/models/test_store.py::test_a_read_only_folder_is_said",
        ),
        tested(
            "Too little memory on the GPU",
            "Smaller batches, then an error",
            "unit/engines/test_memory_limit.py::test_the_batch_size_is_halved_until_it_fits_and_stays_so",
            "unit/engines/test_memory_limit.py::test_a_window_that_does_not_fit_alone_says_what_to_do",
        ),
        tested(
            "A client that disconnects",
            "The work stops, and its files are removed",
            S + "test_a_caller_who_hangs_up_stops_the_work",
            S + "test_a_caller_who_hangs_up_while_sending_leaves_nothing",
        ),
        tested(
            "Cancel at any time, and delete while a job runs",
            "The worker stops",
            JOBS + "test_cancel_stops_the_work_and_can_be_repeated",
            WORK + "test_a_job_deleted_while_it_runs_stops_and_its_waiting_caller_is_told",
        ),
        tested("Many uploads at once", "Each answer is that of its own recording", S + "test_answers_do_not_mix"),
        tested(
            "A clock that jumps",
            "No job is lost or taken twice",
            "contract/test_job_store.py::test_a_clock_that_goes_back_does_not_free_a_job_and_release_does_not_care",
        ),
        tested(
            "A log folder that cannot be written",
            "A warning on the console",
            LOGS + "test_a_folder_that_cannot_be_written_costs_a_warning",
        ),
        tested("A log that is rotated", "No line is lost", LOGS + "test_the_file_is_rotated"),
        tested(
            "10,000 finished jobs",
            "Metrics cost less than reading the jobs",
            "api/test_metrics.py::test_ten_thousand_jobs_cost_less_than_to_read_them",
        ),
        tested(
            "Files that remain after a job",
            "There are none: recordings, samples, parts and deleted text go",
            "unit/jobs/test_retention.py::test_after_every_end_nothing_is_left_but_the_database",
            "unit/jobs/test_retention.py::test_deleted_words_are_on_the_disk_no_more",
        ),
    ),
    "Model files": (
        tested(
            "A `.nemo` archive with `../` or a link",
            "Refused",
            ARCH + "test_refuses_members_that_no_model_has",
            NEMO + "test_an_archive_that_writes_elsewhere",
        ),
        tested(
            "A configuration whose `_target_` is `os.system` (CVE-2025-23304)",
            "Refused",
            NEMO + "test_a_configuration_that_calls_functions",
        ),
        tested(
            "Weights with a pickle that runs code (CVE-2026-24157, CVE-2026-24159)",
            "Refused",
            NEMO + "test_weights_that_are_code",
            "unit/models/test_checkpoint.py::test_nothing_in_the_file_is_run",
        ),
        tested(
            "`TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1` in the environment",
            "NeMo models are not loaded",
            "unit/engines/nemo/test_safe_import.py::test_refuses_an_environment_that_lets_weights_run_code",
        ),
    ),
    "Holes of similar services": (
        tested(
            "Open redirects, single sign-on, tokens as parameters",
            "There are no redirects and no sessions; keys are headers",
            ACCESS + "test_who_is_let_in",
        ),
        tested(
            "Video decoders with known holes (FFmpeg before 8.1.2)",
            "Never opened",
            H + "test_no_listed_decoder_is_for_video",
        ),
        tested(
            "Any URL that contains the name of a known site",
            "The address decides, not the text",
            URL + "test_an_address_that_is_not_public_is_refused_in_every_spelling",
        ),
        tested(
            "Unsigned webhooks with local paths",
            "Signed, and without paths",
            HOOK + "test_a_receiver_gets_what_it_can_check",
        ),
        tested("White space of the file name in RTTM", "Becomes `_`", FORM + "test_file_names_are_never_paths"),
        tested("An empty recording that divides by zero", "`empty_audio`", H + "test_nothing_in_it"),
        tested(
            "An upload in memory before its size is checked",
            "Never in memory",
            "api/test_job_server.py::test_a_large_upload_is_never_in_memory",
        ),
        tested(
            "A path with a suffix of the client",
            "The decoder gets an open file, and no path",
            "unit/audio/test_formats.py::test_the_name_of_the_file_means_nothing",
        ),
        tested(
            "A URL that is handed to FFmpeg",
            "The service downloads it itself; FFmpeg has no network protocol",
            A + "test_no_playlist_opens_a_connection",
        ),
        tested(
            "Exceptions in responses",
            "Own words, and the ID of the request",
            "api/test_diarize.py::test_a_fault_shows_nothing_of_the_inside",
        ),
    ),
}
