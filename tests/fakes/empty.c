/* A library that has the right name and nothing in it. */
static const char nothing __attribute__((used)) = 0;
