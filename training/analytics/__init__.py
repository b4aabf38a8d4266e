"""LEARN for people: what the dashboard shows and SQL cannot say, because it is fitted.

    segments        kinds of users, with stable ids and a sentence each
    value           what a customer will bring: BG/NBD and Gamma–Gamma, judged on a holdout
    network         the graph of users and items: measures, communities, influence, bridges
    neo4j           the same graph as CSV and Cypher, for who has a Neo4j server; by hand, no task
    overlap         how the domains' users overlap, and whether taste crosses over
    effectiveness   what the lists are like and lead to, by segment and variant

Each file is one job: a pure core, and below it the job that reads marts and replaces the rows of its domains. Each job
says plainly what it leaves out when there is too little to say anything.
"""
