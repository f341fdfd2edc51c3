/* Messages for the person who runs skerry, on stderr. Only vm/, host/ and cli/ call these; everything else traces. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
