with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

-- Months are counted from year 0, so that an age in months is a difference.
active_months as (

    select distinct
        domain,
        user_id,
        (extract(year from occurred_date) * 12 + extract(month from occurred_date) - 1)::integer as active_month

    from interactions

),

first_months as (

    select
        domain,
        user_id,
        min(active_month) as cohort_month

    from active_months
    group by domain, user_id

),

cohorts as (

    select
        domain,
        cohort_month,
        count(*) as cohort_users

    from first_months
    group by domain, cohort_month

),

-- A domain's data end with its latest event; what comes after is not zero, it is not known.
latest_days as (

    select
        domain,
        max(occurred_date) as latest_date

    from interactions
    group by domain

),

last_months as (

    select
        domain,
        (extract(year from latest_date) * 12 + extract(month from latest_date) - 1)::integer as last_month,
        extract(day from latest_date + 1) = 1 as is_whole

    from latest_days

),

ages as (

    select
        cohorts.domain,
        cohorts.cohort_month,
        cohorts.cohort_users,
        age as age_months,
        cohorts.cohort_month + age < last_months.last_month or last_months.is_whole as is_complete

    from cohorts
    inner join last_months using (domain)
    cross join lateral generate_series(0, least(last_months.last_month - cohorts.cohort_month, 24)) as age

),

active_per_age as (

    select
        first_months.domain,
        first_months.cohort_month,
        active_months.active_month - first_months.cohort_month as age_months,
        count(*) as active_users

    from first_months
    inner join active_months using (domain, user_id)
    group by first_months.domain, first_months.cohort_month, active_months.active_month - first_months.cohort_month

),

retention as (

    select
        ages.domain,
        make_date(ages.cohort_month / 12, ages.cohort_month % 12 + 1, 1) as cohort_month,
        ages.age_months,
        ages.cohort_users,
        coalesce(active_per_age.active_users, 0) as active_users,
        coalesce(active_per_age.active_users, 0)::double precision / ages.cohort_users as retention,
        ages.is_complete,
        ages.cohort_users < 20 as is_small_cohort

    from ages
    left join active_per_age using (domain, cohort_month, age_months)

)

select * from retention
